//! How close a plan's picture is to a reference: a type, so that no plan can promise nothing.

use std::fmt;

/// How close two ways of painting the same job are, from best to worst. A result that depends on who was faster has no
/// place here: it cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exactness {
    /// E0: the same bits, on machines of the same numeric class (adapter, driver and shader set).
    Identical,
    /// E1: the same mathematics; sums of floats are taken in another order.
    Reordered,
    /// E2: deterministic, but another function.
    PlanDifferent,
    /// E3: deterministic given the plan, and an approximation.
    Approximate,
}

impl Exactness {
    /// `E0` to `E3`.
    pub fn code(self) -> &'static str {
        match self {
            Self::Identical => "E0",
            Self::Reordered => "E1",
            Self::PlanDifferent => "E2",
            Self::Approximate => "E3",
        }
    }

    /// The class in words.
    pub fn label(self) -> &'static str {
        match self {
            Self::Identical => "identical",
            Self::Reordered => "reordered",
            Self::PlanDifferent => "plan-different",
            Self::Approximate => "timing-independent approximation",
        }
    }
}

impl fmt::Display for Exactness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} \"{}\"", self.code(), self.label())
    }
}
