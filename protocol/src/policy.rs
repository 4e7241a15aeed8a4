//! How far a room believes its workers; part of the room's link.

/// How far the workers of a room are believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// People who know each other: deliveries are checked for form and plausibility, and against own devices now and then.
    #[default]
    Friends,
    /// Anybody: a unit counts when workers of two unrelated domains agree, or an own device computed it.
    Open,
    /// As `Open`, with three domains.
    Paranoid,
}

impl Policy {
    /// Unrelated domains that must agree on a unit that no own device computed.
    pub fn quorum(self) -> usize {
        match self {
            Self::Friends => 1,
            Self::Open => 2,
            Self::Paranoid => 3,
        }
    }

    /// The policy of this name, as [`Policy::name`] gives it.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Friends, Self::Open, Self::Paranoid].into_iter().find(|policy| policy.name() == name)
    }

    /// `friends`, `open` or `paranoid`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Friends => "friends",
            Self::Open => "open",
            Self::Paranoid => "paranoid",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_have_names() {
        for policy in [Policy::Friends, Policy::Open, Policy::Paranoid] {
            assert_eq!(Policy::parse(policy.name()), Some(policy));
        }
        assert_eq!(Policy::parse("naive"), None);
    }
}
