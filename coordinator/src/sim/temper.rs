//! How a worker behaves: honestly, or in one of the ways in which people cheat and machines break.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::{LeaseId, RefuseReason, ToRequester, ToWorker, Unit, Work, tensor};
use serde::Deserialize;

use crate::sim::rng::Rng;
use crate::sim::toy::compute;

/// A behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Temper {
    /// Does what it is asked.
    Honest,
    /// Delivers numbers of the right size and shape.
    Garbage,
    /// Delivers what it made of another unit.
    Copies,
    /// Delivers what it made of the unit of the same index in an earlier stage.
    Stale,
    /// Delivers values that are not numbers.
    NotANumber,
    /// Delivers an infinite value.
    Infinite,
    /// Delivers values no network gives.
    Huge,
    /// Delivers one value everywhere.
    Constant,
    /// Delivers zeros.
    Zero,
    /// Computes what it is asked, but makes black pictures of it.
    Dark,
    /// Delivers its input.
    Echoes,
    /// Computes with another conditioning, or another prompt.
    WrongSeed,
    /// Computes the step before the one it is asked for.
    StepShort,
    /// Delivers one value too few.
    Short,
    /// Delivers one value too many.
    Long,
    /// Delivers the right numbers, changed by one percent.
    Nudges,
    /// Delivers garbage now and then.
    Sometimes,
    /// Delivers garbage after twenty honest units.
    Sleeper,
    /// Says that it needs next to no time, is slow, and delivers garbage when it is trusted.
    Boasts,
    /// Delivers garbage at once.
    Hasty,
    /// Delivers everything twice.
    Twice,
    /// Delivers garbage under leases of others.
    Thief,
    /// Delivers again what it delivered before, under the old lease and under the new.
    Replays,
    /// Says that it works, and never delivers.
    Beats,
    /// Says nothing.
    Silent,
    /// Says that its queue is full.
    Busy,
    /// Says that it lacks the model which it offered.
    Lacks,
    /// Fails with another reason each time.
    Fickle,
    /// Loses every conditioning that it is sent.
    Forgetful,
    /// Offers itself again and again, each time as something else.
    Shifty,
}

impl Temper {
    /// All but the honest one.
    pub const DISHONEST: [Self; 29] = [
        Self::Garbage,
        Self::Copies,
        Self::Stale,
        Self::NotANumber,
        Self::Infinite,
        Self::Huge,
        Self::Constant,
        Self::Zero,
        Self::Dark,
        Self::Echoes,
        Self::WrongSeed,
        Self::StepShort,
        Self::Short,
        Self::Long,
        Self::Nudges,
        Self::Sometimes,
        Self::Sleeper,
        Self::Boasts,
        Self::Hasty,
        Self::Twice,
        Self::Thief,
        Self::Replays,
        Self::Beats,
        Self::Silent,
        Self::Busy,
        Self::Lacks,
        Self::Fickle,
        Self::Forgetful,
        Self::Shifty,
    ];

    /// How many times as long it works on a unit as an honest engine, and of how many.
    fn pace(self) -> (u32, u32) {
        if self == Self::Hasty {
            (1, 200)
        } else if self == Self::Boasts {
            (3, 1)
        } else {
            (1, 1)
        }
    }

    /// Whether it may deliver a body that passes for a tensor of the unit and is not what the unit asks for.
    pub fn deceives(self) -> bool {
        match self {
            Self::Garbage
            | Self::Copies
            | Self::Stale
            | Self::Constant
            | Self::Zero
            | Self::Dark
            | Self::Echoes
            | Self::WrongSeed
            | Self::StepShort
            | Self::Nudges
            | Self::Sometimes
            | Self::Sleeper
            | Self::Boasts
            | Self::Hasty
            | Self::Thief
            | Self::Replays => true,
            Self::Honest
            | Self::NotANumber
            | Self::Infinite
            | Self::Huge
            | Self::Short
            | Self::Long
            | Self::Twice
            | Self::Beats
            | Self::Silent
            | Self::Busy
            | Self::Lacks
            | Self::Fickle
            | Self::Forgetful
            | Self::Shifty => false,
        }
    }
}

/// What an engine answers: a body or a refusal, or nothing ever.
pub type Answer = Option<Result<Vec<u8>, RefuseReason>>;

/// A behaviour and what it remembers.
#[derive(Clone, Debug)]
pub struct Actor {
    temper: Temper,
    rng: Rng,
    class: u8,
    units: u32,
    /// Earlier results by unit index, and the last one of all.
    earlier: BTreeMap<u32, Vec<u8>>,
    last: Vec<u8>,
    /// What it delivered last.
    delivered: Option<(LeaseId, Arc<[u8]>)>,
}

impl Actor {
    /// One that has done nothing yet. Liars of one seed tell the same lie about the same unit: they are in it together.
    pub fn new(temper: Temper, rng: Rng, class: u8) -> Self {
        Self { temper, rng, class, units: 0, earlier: BTreeMap::new(), last: Vec::new(), delivered: None }
    }

    /// How long the engine works on a unit that would take an honest one this long.
    pub fn work_time(&self, honest: Duration) -> Duration {
        let (times, of) = self.temper.pace();
        honest * times / of
    }

    /// What the engine answers for a unit, and how long it says that it took.
    pub fn answer(&mut self, unit: &Unit, input: &[u8], conditioning: Option<&[u8]>, took: Duration) -> (Answer, u32) {
        let honest = compute(&unit.work, input, conditioning, self.class);
        self.units += 1;
        let says = if self.temper == Temper::Boasts { Duration::from_millis(1) } else { took };
        let answer = self.deceive(unit, input, conditioning, &honest);
        self.earlier.insert(unit.id.index, honest.clone());
        self.last = honest;
        (answer, says.as_millis() as u32)
    }

    /// Changes what its machine says; adds what the machine never would.
    pub fn say(&mut self, message: ToRequester, body: Arc<[u8]>) -> Vec<(ToRequester, Arc<[u8]>)> {
        let is_offer = matches!(message, ToRequester::Offer(_));
        if self.temper == Temper::Silent && !is_offer {
            return Vec::new();
        }
        let ToRequester::Deliver { lease, compute_ms } = message else {
            return self.offers(message).into_iter().map(|message| (message, body.clone())).collect();
        };
        let deliver = |lease, body: &Arc<[u8]>| (ToRequester::Deliver { lease, compute_ms }, body.clone());
        let mut said = Vec::new();
        if self.temper == Temper::Thief {
            let stolen = (1..=3).flat_map(|step| [lease.0 + step, lease.0.saturating_sub(step)]);
            let garbage = garbage(&mut self.rng, body.len() / 4);
            said.extend(stolen.map(|id| deliver(LeaseId(id), &garbage)));
        } else if self.temper == Temper::Replays {
            let earlier = self.delivered.replace((lease, body.clone()));
            said.extend(earlier.into_iter().flat_map(|(old, body)| [deliver(old, &body), deliver(lease, &body)]));
        } else if self.temper == Temper::Twice {
            said.push(deliver(lease, &body));
        }
        said.push(deliver(lease, &body));
        said
    }

    /// Whether what a requester says reaches its machine.
    pub fn hears(&self, message: &ToWorker) -> bool {
        self.temper != Temper::Forgetful || !matches!(message, ToWorker::Store { .. })
    }

    /// A shifty worker offers itself as something else whenever it says anything.
    fn offers(&mut self, message: ToRequester) -> Vec<ToRequester> {
        let ToRequester::Offer(capabilities) = &message else { return vec![message] };
        if self.temper != Temper::Shifty {
            return vec![message];
        }
        let shifted = |number: usize| {
            let mut shifted = capabilities.clone();
            shifted.name = format!("shifty{number}");
            shifted.numeric_class = ["cpu", "gpu", "abacus"][number % 3].into();
            if number % 4 == 3 {
                shifted.models.clear();
            }
            ToRequester::Offer(shifted)
        };
        let number = self.rng.below(8);
        vec![shifted(number), shifted(number + 1), message]
    }

    fn deceive(&mut self, unit: &Unit, input: &[u8], conditioning: Option<&[u8]>, honest: &[u8]) -> Answer {
        let count = honest.len() / 4;
        let mut values = tensor::from_bytes(honest, count).expect("the toy network gives sound values");
        let same_length = |body: &Vec<u8>| body.len() == honest.len();
        let fails = |text: &str| Some(Err(RefuseReason::failed(text)));
        match self.temper {
            Temper::Honest | Temper::Twice | Temper::Thief | Temper::Replays | Temper::Silent => {}
            Temper::Forgetful | Temper::Shifty => {}
            Temper::Garbage | Temper::Hasty | Temper::Boasts => return Some(Ok(lie(honest))),
            Temper::Sometimes if self.rng.chance(150) => return Some(Ok(lie(honest))),
            Temper::Sleeper if self.units > 20 => return Some(Ok(lie(honest))),
            Temper::Sometimes | Temper::Sleeper => {}
            Temper::Copies if same_length(&self.last) => return Some(Ok(self.last.clone())),
            Temper::Copies => return Some(Ok(lie(honest))),
            Temper::Stale => {
                let earlier = self.earlier.get(&unit.id.index).filter(|body| same_length(body));
                return Some(Ok(earlier.cloned().unwrap_or_else(|| honest.to_vec())));
            }
            Temper::NotANumber => values[count / 2] = f32::NAN,
            Temper::Infinite => values[count - 1] = f32::NEG_INFINITY,
            Temper::Huge => values[0] = 1e30,
            Temper::Constant => values.fill(0.25),
            Temper::Zero => values.fill(0.0),
            Temper::Dark if matches!(unit.work, Work::Decode { .. }) => values.fill(0.0),
            Temper::Dark => {}
            Temper::Echoes => {
                let input = tensor::from_bytes(input, input.len() / 4).unwrap_or_default();
                let echo = input.iter().copied().cycle().take(if input.is_empty() { 0 } else { count });
                values = echo.chain(values.iter().copied().skip(if input.is_empty() { 0 } else { count })).collect();
            }
            Temper::WrongSeed => return Some(Ok(wrong_seed(unit, input, conditioning, self.class))),
            Temper::StepShort => return Some(Ok(step_short(unit, input, conditioning, self.class))),
            Temper::Short => values.truncate(count - 1),
            Temper::Long => values.push(0.5),
            Temper::Nudges => values.iter_mut().for_each(|value| *value = *value * 1.01 + 0.001),
            Temper::Beats => return None,
            Temper::Busy => return Some(Err(RefuseReason::Busy)),
            Temper::Lacks => return Some(Err(RefuseReason::UnknownModel)),
            Temper::Fickle => return fails(["out of luck", "no", "the cat sat on it", "later"][self.rng.below(4)]),
        }
        Some(Ok(tensor::to_bytes(&values)))
    }
}

/// The lie that all who are in it together tell about a unit.
fn lie(honest: &[u8]) -> Vec<u8> {
    let seed = honest.iter().take(8).fold(7u64, |seed, byte| seed.rotate_left(8) ^ u64::from(*byte));
    garbage(&mut Rng::new(seed, "lie"), honest.len() / 4).to_vec()
}

fn garbage(rng: &mut Rng, count: usize) -> Arc<[u8]> {
    tensor::to_bytes(&(0..count).map(|_| rng.value()).collect::<Vec<f32>>()).into()
}

fn wrong_seed(unit: &Unit, input: &[u8], conditioning: Option<&[u8]>, class: u8) -> Vec<u8> {
    let mut work = unit.work.clone();
    let mut other = conditioning.unwrap_or_default().to_vec();
    if let Some(byte) = other.first_mut() {
        *byte ^= 1;
    }
    match &mut work {
        Work::Encode { prompt, .. } => prompt.push('!'),
        Work::Paint { spec } => spec.seed ^= 1,
        Work::Decode { .. } => return lie(&compute(&work, input, conditioning, class)),
        Work::Denoise { .. } | Work::Run { .. } => {}
    }
    compute(&work, input, Some(&other), class)
}

fn step_short(unit: &Unit, input: &[u8], conditioning: Option<&[u8]>, class: u8) -> Vec<u8> {
    let mut work = unit.work.clone();
    match &mut work {
        Work::Denoise { timestep, .. } => *timestep += 1.0,
        Work::Run { steps, .. } => steps.count -= 1,
        Work::Paint { spec } => spec.steps = (spec.steps - 1).max(1),
        Work::Encode { .. } | Work::Decode { .. } => {}
    }
    compute(&work, input, conditioning, class)
}
