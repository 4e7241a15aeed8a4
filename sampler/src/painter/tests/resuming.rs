//! A painting that goes on from a snapshot gives the bits of one that was never interrupted, and no other bytes pass for one.

use super::*;

/// One scheduler of every family, and the options that change what is remembered between steps.
const SCHEDULERS: [&str; 5] = [
    r#"{"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": true}"#,
    r#"{"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}"#,
    r#"{"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": true}"#,
    r#"{"_class_name": "DPMSolverMultistepScheduler", "solver_order": 1}"#,
    SCHEDULER,
];

fn begin(spec: &JobSpec, scheduler: &SchedulerConfig, kind: PlanKind) -> Painter {
    Painter::new(JobId([1; 16]), spec.clone(), SHAPE, scheduler, kind).unwrap()
}

fn go_on(snapshot: Snapshot, scheduler: &SchedulerConfig, kind: PlanKind) -> Result<Painter, PainterError> {
    Painter::resume(snapshot, JobId([2; 16]), SHAPE, scheduler, kind)
}

/// Computes the present stage, the last unit first, and opens the next one.
fn step(painter: &mut Painter) {
    for unit in painter.units().iter().rev() {
        let conditioning = painter.conditioning().map(|(_, bytes)| bytes.to_vec());
        let output = compute(unit, &painter.input(unit.id), conditioning.as_deref()).unwrap();
        painter.accept(unit.id, &output).unwrap();
    }
    painter.advance();
}

/// The snapshot of a painting of multistep steps, in the middle of it.
fn halfway() -> Snapshot {
    let mut painter = begin(&spec(3.5, true, Wire::F16), &scheduler(), PlanKind::Tiles);
    (0..3).for_each(|_| step(&mut painter));
    painter.snapshot().unwrap()
}

#[test]
fn a_painting_resumed_at_any_stage_under_any_plan_and_scheduler_has_the_same_bits() {
    for config in SCHEDULERS {
        let scheduler = SchedulerConfig::parse(config).unwrap();
        for (guidance, tiled) in [(1.0, false), (3.5, true)] {
            let spec = spec(guidance, tiled, Wire::F32);
            let mut undisturbed = begin(&spec, &scheduler, PlanKind::CfgTiles);
            paint(&mut undisturbed, compute).unwrap();
            for (before, after) in [PlanKind::Tiles, PlanKind::CfgTiles].into_iter().zip(SPLIT_KINDS) {
                let mut painter = begin(&spec, &scheduler, before);
                let mut stages = 0;
                while let Some(snapshot) = painter.snapshot() {
                    let snapshot = Snapshot::decode(&snapshot.encode()).unwrap();
                    let mut resumed = go_on(snapshot, &scheduler, after).unwrap();
                    assert_eq!((resumed.stage(), resumed.progress()), (painter.stage(), painter.progress()));
                    paint(&mut resumed, compute).unwrap();
                    assert_eq!(bits(&resumed), bits(&undisturbed), "{config} {guidance} {after:?} {stages}");
                    step(&mut painter);
                    stages += 1;
                }
                assert_eq!((stages, painter.stage()), (6, Stage::Done));
            }
        }
    }
}

#[test]
fn runs_of_steps_go_on_from_any_step_and_leave_snapshots_like_others() {
    let spec = spec(3.5, false, Wire::F32);
    let undisturbed = painted(&spec, PlanKind::Cfg);
    let runs = |steps| PlanKind::Runs { steps };
    for (before, after) in
        [(PlanKind::Tiles, runs(3)), (runs(3), PlanKind::Cfg), (runs(1), runs(2)), (runs(3), runs(9))]
    {
        let mut painter = painter(&spec, before);
        while let Some(snapshot) = painter.snapshot() {
            let mut resumed = go_on(snapshot.clone(), &scheduler(), after).unwrap();
            assert_eq!(resumed.snapshot().unwrap().steps_done(), snapshot.steps_done());
            assert_eq!(resumed.progress(), painter.progress());
            paint(&mut resumed, compute).unwrap();
            assert_eq!(bits(&resumed), bits(&undisturbed), "{before:?} {after:?} {:?}", snapshot.steps_done());
            step(&mut painter);
        }
    }
}

#[test]
fn a_run_that_does_not_fit_its_scheduler_or_its_input_is_refused() {
    let mut painter = painter(&spec(3.5, false, Wire::F32), PlanKind::Runs { steps: 2 });
    step(&mut painter);
    step(&mut painter);
    let unit = painter.units().remove(0);
    let input = painter.input(unit.id);
    let values = tensor::from_bytes(&input, 2 * 4 * 11 * 19).unwrap();
    assert!(Run::new(&unit, &SHAPE, &scheduler(), values.clone()).is_ok());
    let refused = |unit: &Unit, scheduler: &SchedulerConfig, values: &[f32]| {
        Run::new(unit, &SHAPE, scheduler, values.to_vec()).unwrap_err().to_string()
    };
    let euler = SchedulerConfig::parse(SCHEDULERS[0]).unwrap();
    assert!(refused(&unit, &euler, &values).contains("remembers other tensors"));
    assert!(refused(&unit, &scheduler(), &values[1..]).contains("input"));
    let encode = Work::Encode { prompt: "a lake".into(), negative: None };
    assert!(refused(&Unit { work: encode, ..unit }, &scheduler(), &[]).contains("not a run"));
}

#[test]
fn a_snapshot_is_of_the_stages_beginning() {
    let mut painter = painter(&spec(3.5, true, Wire::F32), PlanKind::Tiles);
    assert_eq!(painter.snapshot().unwrap().steps_done(), None);
    step(&mut painter);
    step(&mut painter);
    let snapshot = painter.snapshot().unwrap();
    assert_eq!((snapshot.steps_done(), snapshot.spec()), (Some(1), painter.spec()));
    let unit = painter.units().remove(0);
    let conditioning = painter.conditioning().unwrap().1.to_vec();
    let output = compute(&unit, &painter.input(unit.id), Some(&conditioning)).unwrap();
    painter.accept(unit.id, &output).unwrap();
    assert_eq!(painter.snapshot(), Some(snapshot), "what was only begun is not in it");
}

#[test]
fn any_changed_or_missing_byte_is_damage() {
    let bytes = halfway().encode();
    assert_eq!(Snapshot::decode(&bytes), Ok(halfway()));
    for index in (0..bytes.len()).step_by(7).chain([bytes.len() - 1]) {
        let mut changed = bytes.clone();
        changed[index] ^= 0x20;
        let refused = Snapshot::decode(&changed).unwrap_err();
        match index {
            0..8 => assert_eq!(refused, SnapshotError::Foreign),
            8..12 => assert!(matches!(refused, SnapshotError::Version(_))),
            _ => assert_eq!(refused, SnapshotError::Damaged, "byte {index}"),
        }
        assert!(Snapshot::decode(&bytes[..index]).is_err(), "{index} bytes");
    }
    assert_eq!(Snapshot::decode(&[bytes, vec![0]].concat()), Err(SnapshotError::Damaged));
}

#[test]
fn lengths_that_lie_are_damage_even_under_a_good_hash() {
    let forge = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = halfway().encode();
        bytes.truncate(bytes.len() - 32);
        change(&mut bytes);
        let hash = Hash::of(&bytes);
        bytes.extend(hash.as_bytes());
        Snapshot::decode(&bytes)
    };
    assert!(forge(&|_| {}).is_ok());
    let header_length = |length: u32| forge(&move |bytes| bytes[12..16].copy_from_slice(&length.to_le_bytes()));
    for length in [0, 1, u32::MAX] {
        assert_eq!(header_length(length), Err(SnapshotError::Damaged));
    }
    assert_eq!(forge(&|bytes| bytes.truncate(bytes.len() - 1)), Err(SnapshotError::Damaged));
    assert_eq!(forge(&|bytes| bytes.extend([0; 4])), Err(SnapshotError::Damaged));
    let not_a_number = |bytes: &mut Vec<u8>| {
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    };
    assert_eq!(forge(&not_a_number), Err(SnapshotError::Damaged));
}

#[test]
fn a_snapshot_of_another_model_or_for_another_plan_is_refused() {
    let refused = |snapshot: Snapshot, shape, kind| {
        Painter::resume(snapshot, JobId([2; 16]), shape, &scheduler(), kind).unwrap_err().to_string()
    };
    assert!(go_on(halfway(), &scheduler(), PlanKind::Cfg).is_ok());
    let wider = ModelShape { embedding_width: 6, ..SHAPE };
    assert!(refused(halfway(), wider, PlanKind::Tiles).contains("conditioning"));
    let deeper = ModelShape { latent_channels: 5, ..SHAPE };
    assert!(refused(halfway(), deeper, PlanKind::Tiles).contains("latent"));
    assert!(refused(halfway(), SHAPE, PlanKind::Whole).contains("no stage of this plan"));
    assert!(refused(Snapshot { history: None, ..halfway() }, SHAPE, PlanKind::Tiles).contains("latent"));
    assert!(refused(Snapshot { steps_done: 5, ..halfway() }, SHAPE, PlanKind::Tiles).contains("no stage of this plan"));
    let other = SchedulerConfig::parse(SCHEDULERS[0]).unwrap();
    assert!(matches!(go_on(halfway(), &other, PlanKind::Tiles), Err(PainterError::Snapshot(_))));
    let unsound = Snapshot { spec: JobSpec { steps: 0, ..halfway().spec }, ..halfway() };
    assert!(matches!(go_on(unsound, &scheduler(), PlanKind::Tiles), Err(PainterError::Spec(_))));
}

#[test]
fn a_snapshot_has_the_same_bytes_on_every_platform() {
    assert_eq!(
        Hash::of(&halfway().encode()).to_string(),
        "4c643a44b7a13e6f3588b59b42b416a53658329ac4951b9763b0f8beb4a948aa"
    );
}
