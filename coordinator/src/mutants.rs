//! Planted bugs: each of them is a line that somebody could forget. They show that the simulator would notice.
//!
//! Without the feature `mutants`, which nothing but `sim --mutants` turns on, [`is`] is constantly false and nothing of them is
//! left in the machines.

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A delivery counts for whatever its worker holds, under whatever lease it comes.
    DropsFence,
    /// A lease is believed whoever names it.
    AnyWorker,
    /// From the fifteenth on, all leases have one number.
    ReusesLease,
    /// Values that are no numbers pass.
    AcceptsNaN,
    /// A body of another length passes.
    AcceptsAnyLength,
    /// One domain less than the policy says is enough.
    QuorumOffByOne,
    /// Peers are counted where domains should be.
    CountsPeersAsDomains,
    /// The first answer counts, whichever are alike.
    BelievesFirst,
    /// Everybody's answer is as good as an own device's.
    EverybodyIsOwn,
    /// The prompt's encoding is believed without a check.
    BelievesEncoders,
    /// Answers that are a few percent apart are taken for rounding.
    LooseTolerance,
    /// Whole pictures are compared between numeric classes.
    ComparesClasses,
    /// A unit is delivered twice.
    MergesTwice,
    /// The loser of a race keeps its lease.
    HedgesWithoutCancel,
    /// A delivered unit is given away again.
    DoneIsNotDone,
    /// A stage is announced one unit early.
    AnnouncesEarly,
    /// A unit whose lease ended is not put back.
    ForgetsUnit,
    /// What the driver rejects is not done again.
    RejectsNothing,
    /// Whoever left keeps its leases and its place.
    DeafToLeaving,
    /// A new connection inherits what the old one had.
    KeepsOldConnection,
    /// Whoever says that it lends no more is asked all the same.
    IgnoresLeave,
    /// A condemned worker stays in the roster.
    CondemnsInName,
    /// A condemned worker may offer itself again.
    ForgetsCondemned,
    /// What a liar said before stays in the picture.
    NeverRollsBack,
    /// A job goes back one stage too few.
    RollsBackShort,
    /// An own device that cannot judge a unit is waited for.
    WaitsForOwn,
    /// A job fails one peer early.
    FailsEarly,
    /// Peers of one domain can fail a job together.
    FailsOnOneDomain,
    /// Workers are not told that a job is over.
    ForgetsRelease,
    /// A pause never ends.
    PausesForGood,
    /// A worker may be asked twice for one unit.
    AsksTwice,
    /// A worker may be given any number of units at a time.
    NoWindow,
    /// The conditioning is sent after the unit that names it.
    StoresLater,
    /// A unit travels with the input of the stage's first.
    WrongInput,
    /// A worker takes the conditioning that it used last for the one that is named.
    WrongBlob,
    /// A worker delivers under the lease that comes next.
    AnswersAnother,
    /// A worker does not hear that a job is over.
    IgnoresRelease,
}

#[cfg(feature = "mutants")]
mod planted {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Mutant;

    /// The planted bug's place in [`Mutant::ALL`], counted from one; zero for none.
    static PLANTED: AtomicUsize = AtomicUsize::new(0);

    impl Mutant {
        /// All of them.
        pub const ALL: [Self; 37] = [
            Self::DropsFence,
            Self::AnyWorker,
            Self::ReusesLease,
            Self::AcceptsNaN,
            Self::AcceptsAnyLength,
            Self::QuorumOffByOne,
            Self::CountsPeersAsDomains,
            Self::BelievesFirst,
            Self::EverybodyIsOwn,
            Self::BelievesEncoders,
            Self::LooseTolerance,
            Self::ComparesClasses,
            Self::MergesTwice,
            Self::HedgesWithoutCancel,
            Self::DoneIsNotDone,
            Self::AnnouncesEarly,
            Self::ForgetsUnit,
            Self::RejectsNothing,
            Self::DeafToLeaving,
            Self::KeepsOldConnection,
            Self::IgnoresLeave,
            Self::CondemnsInName,
            Self::ForgetsCondemned,
            Self::NeverRollsBack,
            Self::RollsBackShort,
            Self::WaitsForOwn,
            Self::FailsEarly,
            Self::FailsOnOneDomain,
            Self::ForgetsRelease,
            Self::PausesForGood,
            Self::AsksTwice,
            Self::NoWindow,
            Self::StoresLater,
            Self::WrongInput,
            Self::WrongBlob,
            Self::AnswersAnother,
            Self::IgnoresRelease,
        ];
    }

    /// Plants one bug in every machine of this process, in place of the one before; `None` heals them.
    pub fn plant(mutant: Option<Mutant>) {
        let place = mutant.and_then(|mutant| Mutant::ALL.iter().position(|other| *other == mutant));
        PLANTED.store(place.map_or(0, |place| place + 1), Ordering::SeqCst);
    }

    /// Whether this bug is planted.
    pub(crate) fn is(mutant: Mutant) -> bool {
        let planted = PLANTED.load(Ordering::Relaxed);
        planted > 0 && Mutant::ALL[planted - 1] == mutant
    }
}

#[cfg(feature = "mutants")]
pub(crate) use planted::is;
#[cfg(feature = "mutants")]
pub use planted::plant;

/// Whether this bug is planted.
#[cfg(not(feature = "mutants"))]
pub(crate) const fn is(_: Mutant) -> bool {
    false
}
