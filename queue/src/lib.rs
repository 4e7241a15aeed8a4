//! The durable queue's rules: jobs, their types, leases, money and routes, as pure state machines.
//!
//! Nothing here does IO or reads a clock: `store` keeps these records, `relay` drives them. Who loads a record, applies one
//! of its methods and saves it in one transaction has done what this crate allows and nothing else.

mod attempt;
mod breaker;
mod capability;
mod catalogue;
mod job;
pub mod limits;
mod money;
mod names;
mod order;
mod router;
mod submission;
mod time;

pub use self::attempt::{Attempt, AttemptKey, AttemptState, HoldAsk, Step, Stepped};
pub use self::breaker::{Breaker, BreakerState, Fault};
pub use self::capability::{Capability, Present};
pub use self::catalogue::{Catalogue, CatalogueError, Engine, Fallback, JobType, Tier, TypeLimits};
pub use self::job::{
    Change, Deadlines, Job, JobState, Lease, LeaseError, Mode, NewJob, Outcome, Output, Overdue, Progress, Quality,
    Source, Status, TOO_SLOW,
};
pub use self::money::{Budget, Budgets, Entry, EntryKind, MicroUsd, OverBudget, Price, Spending};
pub use self::names::{
    Ask, BucketName, Endpoint, IdempotencyKey, JobId, Model, NameError, Nonce, Owner, QueueName, RoomName, UserName,
};
pub use self::order::{Order, Task};
pub use self::router::{
    Bid, CloudBar, CloudOffer, Decision, Local, Offer, Peers, Placement, Processor, Rejection, Route, RouteRules,
    RunPod, Workers, route,
};
pub use self::submission::{Checked, OrderError, StoredFile, Submission};
pub use self::time::{Day, UnixMs};
