//! What becomes of an engine that fails: once again, then the CPU, then not at all.

use crate::words::EngineChoice;

/// After so many units without a failure, earlier failures are forgiven: a GPU that was lost when the lid was closed is a
/// good GPU.
const FORGIVEN_AFTER: u32 = 32;

/// How an engine has done so far.
#[derive(Debug)]
pub struct Lifecycle {
    choice: EngineChoice,
    is_on_gpu: bool,
    failures: u32,
    units: u32,
}

/// What to do after a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Start again with this choice; the sentence says why.
    Start(EngineChoice, String),
    /// Compute nothing any more; the sentence says why and what still works.
    Stop(String),
}

impl Lifecycle {
    /// An engine that is about to start.
    pub fn new(choice: EngineChoice) -> Self {
        Self { choice, is_on_gpu: choice != EngineChoice::Cpu, failures: 0, units: 0 }
    }

    /// With what it starts, or has started.
    pub fn choice(&self) -> EngineChoice {
        self.choice
    }

    /// It is ready, on the GPU or not.
    pub fn handle_ready(&mut self, is_on_gpu: bool) {
        self.is_on_gpu = is_on_gpu;
    }

    /// It computed a unit.
    pub fn handle_computed(&mut self) {
        self.units += 1;
        if self.units >= FORGIVEN_AFTER {
            (self.units, self.failures) = (0, 0);
        }
    }

    /// It failed. `is_certain` means that it would fail again in the same way.
    pub fn handle_failed(&mut self, reason: &str, is_certain: bool) -> Next {
        self.failures += 1;
        self.units = 0;
        if self.failures == 1 && !is_certain {
            return Next::Start(self.choice, format!("The engine failed ({reason}); it is started once more."));
        }
        if self.choice != EngineChoice::Cpu && (self.is_on_gpu || !is_certain) {
            (self.choice, self.is_on_gpu, self.failures) = (EngineChoice::Cpu, false, 1);
            return Next::Start(self.choice, format!("The engine failed ({reason}); the CPU is tried instead."));
        }
        Next::Stop(format!(
            "This device cannot compute ({reason}). It lends nothing; you can still paint with the devices of others."
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(next: &Next) -> Option<EngineChoice> {
        match next {
            Next::Start(choice, _) => Some(*choice),
            Next::Stop(_) => None,
        }
    }

    #[test]
    fn a_lost_gpu_is_tried_once_more_then_the_cpu_then_nothing() {
        let mut life = Lifecycle::new(EngineChoice::Auto);
        life.handle_ready(true);
        assert_eq!(starts(&life.handle_failed("lost", false)), Some(EngineChoice::Auto));
        life.handle_ready(true);
        assert_eq!(starts(&life.handle_failed("lost", false)), Some(EngineChoice::Cpu));
        life.handle_ready(false);
        assert_eq!(starts(&life.handle_failed("out of memory", false)), None);
    }

    #[test]
    fn a_wrong_answer_of_the_gpu_leaves_the_cpu_and_one_of_the_cpu_leaves_nothing() {
        let mut life = Lifecycle::new(EngineChoice::Gpu);
        assert_eq!(starts(&life.handle_failed("a wrong answer", true)), Some(EngineChoice::Cpu));
        assert_eq!(starts(&life.handle_failed("a wrong answer", true)), None);
        let mut life = Lifecycle::new(EngineChoice::Auto);
        life.handle_ready(false);
        assert_eq!(starts(&life.handle_failed("a wrong answer", true)), None, "it was the CPU already");
    }

    #[test]
    fn a_cpu_that_crashes_is_tried_once_more() {
        let mut life = Lifecycle::new(EngineChoice::Cpu);
        assert_eq!(starts(&life.handle_failed("crash", false)), Some(EngineChoice::Cpu));
        assert_eq!(starts(&life.handle_failed("crash", false)), None);
    }

    #[test]
    fn good_work_wipes_out_a_failure() {
        let mut life = Lifecycle::new(EngineChoice::Auto);
        life.handle_ready(true);
        for _ in 0..5 {
            assert_eq!(starts(&life.handle_failed("lost", false)), Some(EngineChoice::Auto));
            (0..FORGIVEN_AFTER).for_each(|_| life.handle_computed());
        }
    }
}
