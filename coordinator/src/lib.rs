//! Plans, leases and their failures, as state machines that do no IO.
//!
//! [`Requester`] lends the units of a job's present stage on leases and survives whatever its workers do; [`Worker`] takes
//! leases from several requesters and has them computed one at a time; [`plan`](fn@plan) says beforehand what will be split over
//! whom. Every machine is driven the same way: `handle_*` with the present time last, then `poll_output` until it is empty,
//! then `handle_timeout` when `poll_timeout` has come. Nothing remote can make them fail; it can only make them refuse.

pub mod exactness;
#[cfg(feature = "mutants")]
pub mod mutants;
#[cfg(not(feature = "mutants"))]
mod mutants;
pub mod plan;
pub mod requester;
mod rng;
pub mod roster;
#[cfg(feature = "sim")]
pub mod sim;
pub mod speed;
pub mod trust;
pub mod worker;

pub use exactness::Exactness;
pub use plan::{Cut, Plan, PlanError, Rejected, StageKind, StagePlan, Task, plan};
pub use protocol::Policy;
pub use requester::{FailCause, Requester, RequesterOutput};
pub use roster::{AdmitError, Lender, Roster};
pub use trust::{Standing, TrustDomain};
pub use worker::{LeaseKey, Worker, WorkerOutput};
