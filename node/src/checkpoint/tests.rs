//! What is kept can be gone on with, by one process at a time, and nothing else passes for it.

use protocol::{Hash, JobId, JobRequest, JobSpec, ModelId, ModelShape, PlanChoice, PlanKind, Size, Work, tensor};
use sampler::{Painter, SchedulerConfig};

use super::*;

const SHAPE: ModelShape = ModelShape { latent_channels: 4, factor: 2, native_cells: 8, tokens: 3, embedding_width: 5 };

/// A painting after its prompt and so many of its steps.
fn snapshot(steps_done: u32) -> Snapshot {
    let mut painter = painter();
    for _ in 0..=steps_done {
        for unit in painter.units() {
            let output = vec![0.25; Work::output_values(&unit.work, &SHAPE)];
            painter.accept(unit.id, &tensor::to_bytes(&output)).unwrap();
        }
        painter.advance();
    }
    painter.snapshot().unwrap()
}

/// The painting before its prompt is read.
fn unread() -> Snapshot {
    painter().snapshot().unwrap()
}

fn painter() -> Painter {
    let request = JobRequest {
        prompt: "a lake".into(),
        negative: String::new(),
        size: Size { width: 16, height: 16 },
        steps: 100,
        guidance: 1.0,
        seed: 1,
        plan: PlanChoice::Auto,
    };
    let spec = JobSpec::new(request, ModelId(Hash::of(b"model")), &SHAPE).unwrap();
    let scheduler = SchedulerConfig::parse(r#"{"_class_name": "DDIMScheduler"}"#).unwrap();
    Painter::new(JobId([1; 16]), spec, SHAPE, &scheduler, PlanKind::Tiles).unwrap()
}

#[test]
fn what_is_kept_last_is_found_with_the_steps_taken_since() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.checkpoint");
    let mut keeper = Keeper::new(path.clone());
    for done in 0..=60 {
        keeper.note(&snapshot(done)).unwrap();
    }
    let account = keeper.account();
    assert!(account.written >= 3 && account.every_steps <= 25, "{account:?}");
    assert!(open(&path).unwrap_err().contains("another process"));
    drop(keeper);
    let found = open(&path).unwrap();
    let kept = found.snapshot.steps_done().unwrap();
    assert_eq!((found.steps_taken, found.steps_again()), (60, 60 - kept));
    assert!(found.steps_again() < account.every_steps, "{kept} {account:?}");
    assert_eq!(found.snapshot, snapshot(kept));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing lies beside it");
}

#[test]
fn a_painting_that_goes_on_keeps_its_file_and_a_finished_one_leaves_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.checkpoint");
    Keeper::new(path.clone()).note(&snapshot(3)).unwrap();
    std::fs::write(part_of(&path), "what a killed process was writing").unwrap();
    let mut keeper = Keeper::of(open(&path).unwrap());
    assert!(open(&path).is_err(), "two processes cannot go on with it");
    keeper.note(&snapshot(3)).unwrap();
    assert_eq!((keeper.kept(), keeper.account().written), (Some(3), 0), "it is kept already");
    keeper.note(&snapshot(4)).unwrap();
    assert_eq!((keeper.kept(), keeper.account().written), (Some(4), 1));
    keeper.remove();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn steps_that_are_taken_back_are_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.checkpoint");
    let mut keeper = Keeper::new(path.clone());
    keeper.note(&snapshot(40)).unwrap();
    keeper.note(&snapshot(7)).unwrap();
    drop(keeper);
    let found = open(&path).unwrap();
    assert_eq!((found.snapshot.steps_done(), found.steps_taken), (Some(7), 7));
}

#[test]
fn nothing_is_kept_of_a_painting_that_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.checkpoint");
    let mut keeper = Keeper::new(path.clone());
    let anew = unread();
    assert_eq!(anew.steps_done(), None);
    keeper.note(&anew).unwrap();
    keeper.note(&snapshot(0)).unwrap();
    keeper.note(&snapshot(40)).unwrap();
    keeper.note(&anew).unwrap();
    assert!(keeper.kept().is_none() && !path.exists(), "what a liar read for it, or another layout");
    keeper.note(&snapshot(0)).unwrap();
    assert_eq!((keeper.kept(), path.exists()), (Some(0), true), "kept at once");
}

#[test]
fn what_is_no_checkpoint_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.checkpoint");
    assert!(open(&path).unwrap_err().contains("cannot be read"));
    drop(Keeper::new(path.clone()).note(&snapshot(3)));
    let good = std::fs::read(&path).unwrap();
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        open(&path).unwrap_err()
    };
    assert!(refused(b"").contains("not a painting's checkpoint"));
    assert!(refused(b"something else, and longer than a few bytes").contains("not a painting's checkpoint"));
    assert!(refused(&good[..good.len() - 9]).contains("is damaged"));
    let mut newer = good.clone();
    newer[8] += 1;
    assert!(refused(&newer).contains("version 2"));
    assert!(refused(&vec![0; SNAPSHOT_BYTES_MAX + 5]).contains("longer than any checkpoint"));
    let mut boastful = good;
    let end = boastful.len();
    boastful[end - 4..].copy_from_slice(&u32::MAX.to_le_bytes());
    std::fs::write(&path, boastful).unwrap();
    assert_eq!(open(&path).unwrap().steps_taken, 100);
}

#[test]
fn the_oldest_abandoned_checkpoints_make_room_but_not_those_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = |index: usize| folder.path().join(format!("{index:02}.checkpoint"));
    let running = {
        let mut keeper = Keeper::new(path(0));
        keeper.note(&snapshot(0)).unwrap();
        keeper
    };
    for index in 1..ABANDONED_MAX + 4 {
        Keeper::new(path(index)).note(&snapshot(0)).unwrap();
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(index as u64);
        File::open(path(index)).unwrap().set_modified(old).unwrap();
    }
    assert_eq!(abandoned(folder.path())[0], path(1));
    make_room(folder.path());
    assert_eq!(abandoned(folder.path()).len(), ABANDONED_MAX - 1);
    assert_eq!(abandoned(folder.path()).last(), Some(&path(ABANDONED_MAX + 3)));
    drop(running);
    assert!(abandoned(folder.path()).contains(&path(0)));
}
