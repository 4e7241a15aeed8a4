//! A supervisor with a clock that the tests turn.

use super::*;

const GRACE: Duration = Duration::from_secs(30);
const BUDGET: Budget = Budget::Bytes(1000);
const KILLED: Exit = Exit::Signal(9);

/// A supervisor and the time.
struct World {
    supervisor: Supervisor,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let mut world = Self { supervisor: Supervisor::new(BUDGET, GRACE), now: Instant::ZERO };
        assert_eq!(world.outputs(), [Output::Start]);
        world.supervisor.handle_started(world.now);
        world
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.supervisor.poll_output()).collect()
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.supervisor.handle_timeout(self.now);
    }

    fn exit(&mut self, exit: Exit) -> Vec<Output> {
        self.supervisor.handle_exited(exit, self.now);
        self.outputs()
    }

    /// The child crashes and is started again; gives the seconds between.
    fn crash(&mut self) -> u64 {
        let told = self.exit(KILLED);
        let [Output::Tell(News::Restart { again_in, .. })] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!(self.supervisor.poll_timeout(), Some(self.now + *again_in));
        self.pass(*again_in - Duration::from_millis(1));
        assert_eq!(self.outputs(), [], "not before its time");
        self.pass(Duration::from_millis(1));
        assert_eq!(self.outputs(), [Output::Start]);
        self.supervisor.handle_started(self.now);
        again_in.as_secs()
    }
}

#[test]
fn a_crash_is_followed_by_a_start_and_many_by_later_ones() {
    let mut world = World::new();
    let waits: Vec<u64> = (0..8).map(|_| world.crash()).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
}

#[test]
fn who_ran_long_enough_begins_with_a_short_wait_again() {
    let mut world = World::new();
    assert_eq!([world.crash(), world.crash()], [1, 2]);
    world.pass(HEALTHY_AFTER - Duration::from_secs(1));
    assert_eq!(world.crash(), 4, "not quite healthy");
    world.pass(HEALTHY_AFTER);
    assert_eq!(world.crash(), 1);
}

#[test]
fn a_clean_end_and_wrong_usage_are_passed_on() {
    for code in [0, USAGE] {
        assert_eq!(World::new().exit(Exit::Code(code)), [Output::End(code)]);
    }
    for exit in [Exit::Code(1), Exit::Code(101), KILLED] {
        assert!(matches!(World::new().exit(exit).as_slice(), [Output::Tell(News::Restart { .. })]), "{exit}");
    }
}

#[test]
fn who_is_asked_passes_it_on_and_ends_as_the_child_does() {
    for (exit, code) in [(Exit::Code(0), 0), (Exit::Code(101), 101), (Exit::Signal(15), 143)] {
        let mut world = World::new();
        world.supervisor.handle_asked(world.now);
        assert_eq!(world.outputs(), [Output::Ask]);
        world.supervisor.handle_asked(world.now);
        assert_eq!(world.outputs(), [Output::Ask], "asking again is passed on");
        assert_eq!(world.exit(exit), [Output::End(code)]);
        assert_eq!(world.supervisor.poll_timeout(), None);
    }
}

#[test]
fn who_does_not_stop_is_ended_once() {
    let mut world = World::new();
    world.supervisor.handle_asked(world.now);
    world.pass(GRACE / 2);
    world.supervisor.handle_asked(world.now); // Does not give it more time.
    assert_eq!(world.outputs(), [Output::Ask, Output::Ask]);
    world.pass(GRACE / 2);
    assert_eq!(world.outputs(), [Output::Tell(News::Stubborn), Output::Kill]);
    world.pass(GRACE);
    assert_eq!(world.outputs(), []);
    assert_eq!(world.exit(KILLED), [Output::End(137)]);
}

#[test]
fn a_child_over_its_budget_is_asked_to_stop_and_started_anew() {
    let mut world = World::new();
    world.supervisor.handle_memory(1000, world.now);
    assert_eq!(world.outputs(), []);
    world.supervisor.handle_memory(1001, world.now);
    assert_eq!(world.outputs(), [Output::Tell(News::OverBudget { bytes: 1001 }), Output::Ask]);
    world.supervisor.handle_memory(1002, world.now);
    assert_eq!(world.outputs(), [], "once is enough");
    assert!(matches!(world.exit(Exit::Code(0)).as_slice(), [Output::Tell(News::Restart { .. })]));
    world.pass(RESTART_AFTER_MIN);
    assert_eq!(world.outputs(), [Output::Start]);
}

#[test]
fn the_person_s_wish_counts_more_than_the_budget() {
    let mut world = World::new();
    world.supervisor.handle_memory(1001, world.now);
    world.supervisor.handle_asked(world.now);
    world.outputs();
    assert_eq!(world.exit(Exit::Code(0)), [Output::End(0)], "it is not started again");
}

#[test]
fn between_two_starts_it_ends_at_once() {
    let mut world = World::new();
    world.exit(KILLED);
    world.supervisor.handle_asked(world.now);
    assert_eq!(world.outputs(), [Output::End(0)]);
    world.pass(RESTART_AFTER_MAX);
    assert_eq!(world.outputs(), []);
}

#[test]
fn what_cannot_be_started_is_tried_again() {
    let mut world = World::new();
    world.crash();
    world.exit(KILLED);
    world.pass(RESTART_AFTER_MAX);
    assert_eq!(world.outputs(), [Output::Start]);
    world.supervisor.handle_not_started("no such file".into(), world.now);
    let told = world.outputs();
    assert!(matches!(told.as_slice(), [Output::Tell(News::Restart { how, .. })] if how == "no such file"), "{told:?}");
}
