//! The calls of a sequence, as a strategy makes them: which job or attempt is meant is found out when it is made.

use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::strategy::BoxedStrategy;
use proptest_state_machine::ReferenceStateMachine;
use queue::{Budgets, MicroUsd, Mode, Source};

/// What holds for a whole sequence.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// The budgets every hold is asked under.
    pub budgets: Budgets,
}

/// A job: one of those submitted, or none if it is past the last.
pub type JobPick = u8;

/// An attempt: one of those held, or none if it is past the last.
pub type AttemptPick = u8;

/// Which fence comes with a call.
#[derive(Clone, Copy, Debug)]
pub enum Fence {
    /// That of the newest lease.
    Newest,
    /// One that is over.
    Older,
    /// One that was never given.
    Newer,
}

/// What a lease or an attempt ends with.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// A result.
    Completed,
    /// No result, for now.
    Failed,
    /// No result, ever.
    FailedForGood,
    /// Handed back.
    HandedBack,
}

/// A step of an attempt.
#[derive(Clone, Copy, Debug)]
pub enum Move {
    /// Whatever comes next if all goes well.
    Next,
    Intend,
    Submit,
    LoseReply,
    Reject,
    Claim {
        is_right: bool,
    },
    Finish {
        seconds: u8,
    },
    Fail {
        seconds: Option<u8>,
    },
    Expire {
        is_gone: bool,
    },
    Settle,
}

/// A call.
#[derive(Clone, Debug)]
pub enum Call {
    Wait {
        seconds: u32,
    },
    Submit {
        room: u8,
        user: u8,
        key: Option<u8>,
        again: Option<JobPick>,
        model: Option<u8>,
        mode: Mode,
        priority: i32,
        images: u8,
    },
    Take {
        room: Option<u8>,
        worker: u8,
        source: Source,
        models: Option<Vec<u8>>,
    },
    Beat {
        job: JobPick,
        fence: Fence,
        permille: Option<u16>,
    },
    Finish {
        job: JobPick,
        fence: Fence,
        end: End,
        saving: u64,
    },
    Cancel {
        job: JobPick,
    },
    Refuse {
        job: JobPick,
    },
    Retry {
        job: JobPick,
    },
    FallBack {
        job: JobPick,
        ask: u8,
        model: Option<u8>,
    },
    Explain {
        job: JobPick,
        route: u8,
    },
    Purge {
        room: u8,
    },
    Expire,
    HandBack {
        worker: u8,
    },
    Push {
        job: JobPick,
        fence: Fence,
    },
    Drain {
        job: JobPick,
    },
    Forget {
        seconds: u32,
    },
    Hold {
        job: JobPick,
        rate: u64,
        claims: bool,
        driver: u8,
        is_nonce_used: bool,
    },
    Step {
        attempt: AttemptPick,
        step: Move,
    },
    Settle {
        attempt: AttemptPick,
        end: End,
    },
    Claim {
        attempt: AttemptPick,
        is_right: bool,
    },
    Adopt {
        driver: u8,
    },
    SetBreaker {
        endpoint: u8,
        state: u8,
    },
    Tell {
        relay: u8,
        text: u8,
    },
    /// One of the calls that only look.
    Look {
        at: u8,
        job: JobPick,
        attempt: AttemptPick,
        room: Option<u8>,
        user: u8,
        count_max: usize,
    },
}

/// Makes sequences; what they lead to is not foretold here but by the store in memory.
pub struct Machine;

impl ReferenceStateMachine for Machine {
    type State = Setup;
    type Transition = Call;

    fn init_state() -> BoxedStrategy<Setup> {
        let amounts = (40..240_u64, 20..160_u64, 10..100_u64, 10..100_u64);
        let budgets = amounts.prop_map(|(total, day, user_day, room_day)| Budgets {
            total: MicroUsd(total),
            day: MicroUsd(day),
            user_day: MicroUsd(user_day),
            room_day: MicroUsd(room_day),
        });
        budgets.prop_map(|budgets| Setup { budgets }).boxed()
    }

    fn transitions(_: &Setup) -> BoxedStrategy<Call> {
        prop_oneof![2 => time(), 5 => submissions(), 6 => leases(), 3 => jobs(), 8 => money(), 3 => looks()].boxed()
    }

    fn apply(state: Setup, _: &Call) -> Setup {
        state
    }
}

fn time() -> impl Strategy<Value = Call> {
    prop_oneof![
        4 => (0..15_u32).prop_map(|seconds| Call::Wait { seconds }),
        1 => (15..200_u32).prop_map(|seconds| Call::Wait { seconds }),
        1 => Just(Call::Wait { seconds: 24 * 60 * 60 }),
    ]
}

fn submissions() -> impl Strategy<Value = Call> {
    let key = proptest::option::weighted(0.4, 0..3_u8);
    let again = proptest::option::weighted(0.1, job());
    let model = proptest::option::of(0..3_u8);
    let mode = prop_oneof![4 => Just(Mode::Auto), 1 => Just(Mode::Local), 1 => Just(Mode::Cloud)];
    let images = prop_oneof![4 => Just(1_u8), 1 => 2..4_u8];
    let order = (0..2_u8, 0..2_u8, key, again, model, mode, -2..3_i32, images);
    order.prop_map(|(room, user, key, again, model, mode, priority, images)| Call::Submit {
        room,
        user,
        key,
        again,
        model,
        mode,
        priority,
        images,
    })
}

fn leases() -> impl Strategy<Value = Call> {
    let source = prop_oneof![5 => Just(Source::Local), 5 => Just(Source::Peer), 1 => Just(Source::Cloud)];
    let models = proptest::option::of(proptest::collection::vec(0..3_u8, 0..3));
    let take = (proptest::option::of(0..2_u8), 0..3_u8, source, models);
    let saving = prop_oneof![Just(0), 1..50_u64];
    prop_oneof![
        4 => take.prop_map(|(room, worker, source, models)| Call::Take { room, worker, source, models }),
        2 => (job(), fence(), proptest::option::of(0..1001_u16))
            .prop_map(|(job, fence, permille)| Call::Beat { job, fence, permille }),
        4 => (job(), fence(), end(), saving).prop_map(|(job, fence, end, saving)| Call::Finish { job, fence, end, saving }),
        1 => Just(Call::Expire),
        1 => (0..3_u8).prop_map(|worker| Call::HandBack { worker }),
        3 => (job(), fence()).prop_map(|(job, fence)| Call::Push { job, fence }),
        1 => job().prop_map(|job| Call::Drain { job }),
    ]
}

fn jobs() -> impl Strategy<Value = Call> {
    prop_oneof![
        2 => job().prop_map(|job| Call::Cancel { job }),
        1 => job().prop_map(|job| Call::Refuse { job }),
        3 => job().prop_map(|job| Call::Retry { job }),
        1 => (job(), 0..3_u8, proptest::option::of(0..3_u8))
            .prop_map(|(job, ask, model)| Call::FallBack { job, ask, model }),
        1 => (job(), 0..2_u8).prop_map(|(job, route)| Call::Explain { job, route }),
        1 => (0..2_u8).prop_map(|room| Call::Purge { room }),
        1 => (0..300_u32).prop_map(|seconds| Call::Forget { seconds }),
        1 => (0..3_u8, any::<u8>()).prop_map(|(relay, text)| Call::Tell { relay, text }),
    ]
}

fn money() -> impl Strategy<Value = Call> {
    let nonce = proptest::bool::weighted(0.1);
    let hold = (job(), 1..4_u64, any::<bool>(), 0..2_u8, nonce);
    prop_oneof![
        5 => hold.prop_map(|(job, rate, claims, driver, is_nonce_used)| Call::Hold {
            job,
            rate,
            claims,
            driver,
            is_nonce_used,
        }),
        8 => (attempt(), step()).prop_map(|(attempt, step)| Call::Step { attempt, step }),
        4 => (attempt(), end()).prop_map(|(attempt, end)| Call::Settle { attempt, end }),
        3 => (attempt(), proptest::bool::weighted(0.8))
            .prop_map(|(attempt, is_right)| Call::Claim { attempt, is_right }),
        1 => (0..2_u8).prop_map(|driver| Call::Adopt { driver }),
        1 => (0..2_u8, 0..3_u8).prop_map(|(endpoint, state)| Call::SetBreaker { endpoint, state }),
    ]
}

fn looks() -> impl Strategy<Value = Call> {
    let look = (any::<u8>(), job(), attempt(), proptest::option::of(0..2_u8), 0..2_u8, 0..12_usize);
    look.prop_map(|(at, job, attempt, room, user, count_max)| Call::Look { at, job, attempt, room, user, count_max })
}

fn step() -> impl Strategy<Value = Move> {
    prop_oneof![
        12 => Just(Move::Next),
        1 => Just(Move::Intend),
        1 => Just(Move::Submit),
        1 => Just(Move::LoseReply),
        1 => Just(Move::Reject),
        1 => any::<bool>().prop_map(|is_right| Move::Claim { is_right }),
        2 => (0..20_u8).prop_map(|seconds| Move::Finish { seconds }),
        2 => proptest::option::of(0..20_u8).prop_map(|seconds| Move::Fail { seconds }),
        2 => any::<bool>().prop_map(|is_gone| Move::Expire { is_gone }),
        1 => Just(Move::Settle),
    ]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        4 => Just(End::Completed),
        3 => Just(End::Failed),
        2 => Just(End::FailedForGood),
        1 => Just(End::HandedBack),
    ]
}

fn fence() -> impl Strategy<Value = Fence> {
    prop_oneof![6 => Just(Fence::Newest), 1 => Just(Fence::Older), 1 => Just(Fence::Newer)]
}

fn job() -> impl Strategy<Value = JobPick> {
    any::<u8>()
}

fn attempt() -> impl Strategy<Value = AttemptPick> {
    any::<u8>()
}
