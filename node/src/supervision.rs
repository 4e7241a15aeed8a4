//! When a supervised process is started again, asked to stop, or given up: a pure state machine, driven by `manyhands`.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use protocol::Instant;

use crate::backoff::Backoff;
use crate::memory::Budget;

/// A crash is first followed by a new start after this long.
pub const RESTART_AFTER_MIN: Duration = Duration::from_secs(1);

/// However often it crashed, a new start comes after this long: nobody waits for ever for a relay that is repaired.
pub const RESTART_AFTER_MAX: Duration = Duration::from_secs(60);

/// Who has run so long is healthy: its earlier crashes are forgotten.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(5 * 60);

/// How often the child's memory is looked at. A model is loaded in seconds, and a budget is no hard wall.
pub const MEMORY_LOOK_EVERY: Duration = Duration::from_secs(5);

/// Exit code of a process that was called wrongly: doing it again would be as wrong.
const USAGE: i32 = 2;

/// Shells tell the end by signal N as exit code 128 + N.
const SIGNALLED: i32 = 128;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself.
    Code(i32),
    /// By a signal, as of a crash or the system that needs memory.
    Signal(i32),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "exit code {code}"),
            Self::Signal(signal) => write!(formatter, "signal {signal}"),
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Start the child, and say whether that worked.
    Start,
    /// Ask the child to stop.
    Ask,
    /// End the child, which does not stop.
    Kill,
    /// Tell the person.
    Tell(News),
    /// Nothing more is to be done: end with this exit code.
    End(i32),
}

/// What a person is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The child has ended and should not have, or could not be started; it is started again after so long.
    Restart {
        /// How it ended.
        how: String,
        /// The wait.
        again_in: Duration,
    },
    /// The child holds too much memory and is started anew.
    OverBudget {
        /// What it holds.
        bytes: u64,
    },
    /// It does not stop and is ended.
    Stubborn,
}

/// Keeps one child running.
pub struct Supervisor {
    budget: Budget,
    grace: Duration,
    backoff: Backoff,
    state: State,
    outputs: VecDeque<Output>,
}

enum State {
    Starting,
    Running { since: Instant, stopping: Option<Stopping> },
    Waiting { until: Instant },
    Ended,
}

struct Stopping {
    why: Why,
    kill_at: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    Asked,
    Memory,
}

impl Supervisor {
    /// Starts a child that may hold so much memory, and has `grace` to stop when it is asked.
    pub fn new(budget: Budget, grace: Duration) -> Self {
        let backoff = Backoff::new(RESTART_AFTER_MIN, RESTART_AFTER_MAX);
        Self { budget, grace, backoff, state: State::Starting, outputs: [Output::Start].into() }
    }

    /// The child runs.
    pub fn handle_started(&mut self, now: Instant) {
        if matches!(self.state, State::Starting) {
            self.state = State::Running { since: now, stopping: None };
        }
    }

    /// The child cannot be started.
    pub fn handle_not_started(&mut self, reason: String, now: Instant) {
        if matches!(self.state, State::Starting) {
            self.wait(reason, now);
        }
    }

    /// The child has ended.
    pub fn handle_exited(&mut self, exit: Exit, now: Instant) {
        let State::Running { since, stopping } = &self.state else { return };
        let why = stopping.as_ref().map(|stopping| stopping.why);
        if now.since(*since) >= HEALTHY_AFTER {
            self.backoff.succeed();
        }
        match (why, exit) {
            (Some(Why::Asked), Exit::Code(code)) => self.end(code),
            (Some(Why::Asked), Exit::Signal(signal)) => self.end(SIGNALLED + signal),
            // Started anew also if it is over its budget again at once, but then less and less often.
            (Some(Why::Memory), exit) => self.wait(exit.to_string(), now),
            (None, Exit::Code(code @ (0 | USAGE))) => self.end(code),
            (None, exit) => self.wait(exit.to_string(), now),
        }
    }

    /// The person, or the system, asks for the end. Asking again is passed on.
    pub fn handle_asked(&mut self, now: Instant) {
        match &mut self.state {
            State::Running { stopping, .. } => {
                let kill_at = stopping.as_ref().map_or(now + self.grace, |stopping| stopping.kill_at);
                *stopping = Some(Stopping { why: Why::Asked, kill_at });
                self.outputs.push_back(Output::Ask);
            }
            State::Starting | State::Waiting { .. } => self.end(0),
            State::Ended => {}
        }
    }

    /// The child holds so much memory.
    pub fn handle_memory(&mut self, bytes: u64, now: Instant) {
        let State::Running { stopping: stopping @ None, .. } = &mut self.state else { return };
        if self.budget.is_exceeded_by(bytes) {
            *stopping = Some(Stopping { why: Why::Memory, kill_at: now + self.grace });
            self.outputs.push_back(Output::Tell(News::OverBudget { bytes }));
            self.outputs.push_back(Output::Ask);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.state {
            State::Waiting { until } if *until <= now => {
                self.state = State::Starting;
                self.outputs.push_back(Output::Start);
            }
            State::Running { stopping: Some(stopping), .. } if stopping.kill_at <= now => {
                stopping.kill_at = Instant::MAX; // Once is enough.
                self.outputs.push_back(Output::Tell(News::Stubborn));
                self.outputs.push_back(Output::Kill);
            }
            State::Starting | State::Running { .. } | State::Waiting { .. } | State::Ended => {}
        }
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { until } => Some(*until),
            State::Running { stopping: Some(stopping), .. } => Some(stopping.kill_at),
            State::Starting | State::Running { stopping: None, .. } | State::Ended => None,
        }
    }

    fn wait(&mut self, how: String, now: Instant) {
        let again_in = self.backoff.fail();
        self.state = State::Waiting { until: now + again_in };
        self.outputs.push_back(Output::Tell(News::Restart { how, again_in }));
    }

    fn end(&mut self, code: i32) {
        self.state = State::Ended;
        self.outputs.push_back(Output::End(code));
    }
}
