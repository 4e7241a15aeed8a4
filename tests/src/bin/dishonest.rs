//! A worker that lies: an ordinary participant around the real engine, with every answer falsified in one chosen way.
//!
//! `dishonest LINK LIE` joins a room until it is killed. It is honest where it has nothing to lie with yet, and about the
//! units by which it measures itself: those nobody checks.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use compute::{Diffusion, Engine, EngineError, Stop};
use node::meeting::{self, Means};
use node::{Notice, Participant, Setup, lane, models};
use protocol::{Hash, JobId, ModelId, ModelShape, RoomLink, Unit, UnitId, Work, tensor};
use sampler::noise::{self, Purpose};
use serde_json::json;

/// The job of the units by which a worker measures itself.
const PILOT: JobId = JobId([0; 16]);

/// Units that a turncoat computes honestly before its first lie.
const HONEST_UNITS: usize = 10;

/// Where it listens: whoever tests is on this machine.
const LISTEN: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// How it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// Random values of a plausible size.
    Garbage,
    /// The answer it gave to another unit.
    Copied,
    /// The answer it gave to the same tile in an earlier step.
    Stale,
    /// An honest answer with one value that is no number.
    Nan,
    /// What the model makes of another latent.
    OtherSeed,
    /// What the model makes of another prompt.
    OtherPrompt,
    /// What the model makes of the same latent at an earlier step's time.
    StepShort,
    /// An honest answer off by one part in a hundred.
    Perturbed,
    /// Honest answers at first, then garbage.
    Turncoat,
}

impl Lie {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "garbage" => Self::Garbage,
            "copied" => Self::Copied,
            "stale" => Self::Stale,
            "nan" => Self::Nan,
            "other-seed" => Self::OtherSeed,
            "other-prompt" => Self::OtherPrompt,
            "step-short" => Self::StepShort,
            "perturbed" => Self::Perturbed,
            "turncoat" => Self::Turncoat,
            _ => return None,
        })
    }
}

/// The real engine, and what it said before.
struct Liar {
    engine: Diffusion,
    shape: ModelShape,
    lie: Lie,
    /// Honest answers by their place in a stage and their length, each with its stage.
    said: BTreeMap<(u32, usize), (u32, Vec<u8>)>,
    /// The time of the stage that was computed last, and of the one before it.
    times: [Option<f32>; 2],
    computed: usize,
}

impl Engine for Liar {
    fn numeric_class(&self) -> String {
        self.engine.numeric_class()
    }

    fn models(&self) -> Vec<(ModelId, ModelShape)> {
        self.engine.models()
    }

    fn compute(
        &mut self,
        unit: &Unit,
        input: &[u8],
        conditioning: Option<&[u8]>,
        cancelled: Stop<'_>,
    ) -> Result<Vec<u8>, EngineError> {
        let honest = self.engine.compute(unit, input, conditioning, cancelled)?;
        if unit.job == PILOT {
            return Ok(honest);
        }
        self.note_time(&unit.work);
        let lie = self.falsify(unit, input, conditioning, &honest)?;
        self.said.insert((unit.id.index, honest.len()), (unit.id.stage, honest.clone()));
        self.computed += 1;
        Ok(lie.unwrap_or(honest))
    }
}

impl Liar {
    fn note_time(&mut self, work: &Work) {
        if let Work::Denoise { timestep, .. } = work
            && self.times[0] != Some(*timestep)
        {
            self.times = [Some(*timestep), self.times[0]];
        }
    }

    /// What it says instead; `None` where it has nothing to lie with.
    fn falsify(
        &mut self,
        unit: &Unit,
        input: &[u8],
        conditioning: Option<&[u8]>,
        honest: &[u8],
    ) -> Result<Option<Vec<u8>>, EngineError> {
        let UnitId { stage, index } = unit.id;
        Ok(match self.lie {
            Lie::Garbage => Some(garbage(honest)),
            Lie::Copied => {
                let of_others = self
                    .said
                    .iter()
                    .filter(|((at, length), (of, _))| *length == honest.len() && (*at, *of) != (index, stage));
                of_others.map(|(_, (_, answer))| answer.clone()).next_back()
            }
            Lie::Stale => {
                let before = self.said.get(&(index, honest.len())).filter(|(of, _)| *of < stage);
                before.map(|(_, answer)| answer.clone())
            }
            Lie::Nan => {
                let mut answer = honest.to_vec();
                let middle = answer.len() / 8 * 4;
                answer[middle..middle + 4].copy_from_slice(&f32::NAN.to_le_bytes());
                Some(answer)
            }
            Lie::OtherSeed => self.of_another_latent(unit, conditioning)?,
            Lie::OtherPrompt => self.of_another_prompt(unit, input)?,
            Lie::StepShort => self.of_another_time(unit, input, conditioning)?,
            Lie::Perturbed => Some(perturbed(honest)),
            Lie::Turncoat => (self.computed >= HONEST_UNITS).then(|| garbage(honest)),
        })
    }

    fn of_another_latent(&mut self, unit: &Unit, conditioning: Option<&[u8]>) -> Result<Option<Vec<u8>>, EngineError> {
        let (Work::Denoise { rows, columns, .. } | Work::Decode { rows, columns }) = unit.work else { return Ok(None) };
        let noise = noise::field(rand::random(), Purpose::Initial, 0, self.shape.latent_channels, rows, columns);
        let answer = self.engine.compute(unit, &tensor::to_bytes(&noise), conditioning, &|| false)?;
        Ok(Some(answer))
    }

    fn of_another_prompt(&mut self, unit: &Unit, input: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let encode = |rows: u32| {
            let negative = (rows > 1).then(|| "a blue triangle".to_owned());
            Unit { work: Work::Encode { prompt: "a red circle".into(), negative }, ..unit.clone() }
        };
        let mut compute = |unit: &Unit, input: &[u8], conditioning: Option<&[u8]>| {
            self.engine.compute(unit, input, conditioning, &|| false)
        };
        match &unit.work {
            Work::Encode { negative, .. } => compute(&encode(1 + u32::from(negative.is_some())), &[], None).map(Some),
            Work::Denoise { conditioning_rows, .. } => {
                let other = compute(&encode(*conditioning_rows), &[], None)?;
                let mut unit = unit.clone();
                if let Work::Denoise { conditioning, .. } = &mut unit.work {
                    *conditioning = Hash::of(&other);
                }
                compute(&unit, input, Some(&other)).map(Some)
            }
            Work::Run { .. } | Work::Decode { .. } | Work::Paint { .. } => Ok(None),
        }
    }

    fn of_another_time(
        &mut self,
        unit: &Unit,
        input: &[u8],
        conditioning: Option<&[u8]>,
    ) -> Result<Option<Vec<u8>>, EngineError> {
        let mut unit = unit.clone();
        let (Work::Denoise { timestep, .. }, Some(before)) = (&mut unit.work, self.times[1]) else { return Ok(None) };
        *timestep = before;
        self.engine.compute(&unit, input, conditioning, &|| false).map(Some)
    }
}

/// As many values between -1 and 1.
fn garbage(honest: &[u8]) -> Vec<u8> {
    let values: Vec<f32> = (0..honest.len() / 4).map(|_| rand::random_range(-1.0..1.0)).collect();
    tensor::to_bytes(&values)
}

/// The same values with noise of a hundredth of their size.
fn perturbed(honest: &[u8]) -> Vec<u8> {
    let mut values = tensor::from_bytes(honest, honest.len() / 4).expect("an engine's output has been checked");
    let squares: f32 = values.iter().map(|value| value * value).sum();
    let size = (squares / values.len() as f32).sqrt();
    // Uniform noise of this range has the variance 1.
    let range = 3_f32.sqrt();
    values.iter_mut().for_each(|value| *value += 0.01 * size * rand::random_range(-range..range));
    tensor::to_bytes(&values)
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [link, lie] = words.as_slice() else { return Err("usage: dishonest LINK LIE".into()) };
    let lie = Lie::parse(lie).ok_or("no such lie")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(lend(&RoomLink::parse(link)?, lie))
}

async fn lend(link: &RoomLink, lie: Lie) -> Result<(), Box<dyn Error>> {
    let folder = Arc::new(models::open("demo")?);
    let make = move || {
        let engine = Diffusion::load(&folder, 1).map_err(|error| error.to_string())?;
        let (said, times) = (BTreeMap::new(), [None; 2]);
        Ok(Box::new(Liar { engine, shape: folder.shape(), lie, said, times, computed: 0 }) as Box<dyn Engine>)
    };
    let means = Means { listen: vec![LISTEN.into()], ..Means::default() };
    let network = net::start(meeting::configure(link, &means).await?).await?;
    let me = network.0.local_peer();
    let setup = Setup {
        network: Some(network),
        me: None,
        name: "an honest worker".into(),
        engine: Some(lane::start(Box::new(make), 1)),
        lend: true,
        patience: Duration::MAX,
        policy: link.policy,
    };
    let (participant, _commands, mut notices) = Participant::new(setup);
    let running = tokio::spawn(participant.run());
    while let Some(notice) = notices.recv().await {
        match notice {
            Notice::EngineReady(_) => println!("{}", json!({ "event": "lending", "peer": me.as_str() })),
            Notice::EngineFailed { reason, .. } => return Err(reason.into()),
            _ => {}
        }
    }
    running.await?;
    Ok(())
}
