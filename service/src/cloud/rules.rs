//! What an operator allows the cloud: endpoints, prices, budgets. Read from the settings once, at the start.

use queue::{Budgets, Endpoint, MicroUsd, Model, Price, QueueName, RouteRules};
use runpod::{Client, Dialect, Workflow};
use serde_json::{Map, Value};
use std::time::Duration;

/// The name under which the kill switch is kept beside the breakers; no endpoint can have it.
pub(crate) const SWITCH: &str = "switch";

/// The queue of jobs without a type, which came with an input of their own: an endpoint that serves it is given that input.
pub const RAW_QUEUE: &str = "raw";

/// Everything that decides about overflow.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Ceilings on everything that is spent.
    pub budgets: Budgets,
    /// How a way is chosen.
    pub route: RouteRules,
    /// When a job is late, whatever its type says.
    pub overflow_after: Option<Duration>,
    /// For how long after its start the router leaves jobs that workers can do to workers: it has not heard of all of them yet.
    pub await_workers: Duration,
    /// Where the cloud's workers and webhooks reach this relay, such as `https://relay.example`; without it nobody can claim.
    pub public_url: Option<String>,
    /// Who can be asked.
    pub endpoints: Vec<EndpointRules>,
    /// The configuration forbids to spend, whatever the switch says.
    pub is_switched_off: bool,
}

/// One endpoint.
#[derive(Clone, Debug)]
pub struct EndpointRules {
    /// Its name here.
    pub name: Endpoint,
    /// Asks it; holds its key.
    pub client: Client,
    /// Queues that it serves.
    pub queues: Vec<QueueName>,
    /// Models that it has; all that its queues need if empty.
    pub models: Vec<Model>,
    /// What its workers understand.
    pub dialect: Dialect,
    /// The graph that ComfyUI workers run.
    pub workflow: Option<Workflow>,
    /// What is added to every input; the order's own words win.
    pub defaults: Map<String, Value>,
    /// What it costs.
    pub price: Price,
    /// How long it keeps a job (`policy.ttl`).
    pub ttl: Duration,
    /// Whether its workers claim what they run.
    pub claims: bool,
    /// Jobs that it may have at once.
    pub in_flight_max: usize,
}

/// Rules that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// Two endpoints have one name, or one has a name that is taken.
    #[error("the endpoint name {0} is taken; choose another")]
    Name(Endpoint),
    /// Its workers cannot reach the relay.
    #[error("endpoint {0}: claims = true needs public_url, where its workers reach this relay")]
    NoPublicUrl(Endpoint),
    /// It costs nothing, which cannot be.
    #[error("endpoint {0}: its price per second is missing")]
    NoPrice(Endpoint),
    /// A time is not what RunPod allows.
    #[error("endpoint {endpoint}: {what}")]
    Time {
        /// Whose.
        endpoint: Endpoint,
        /// What is wrong.
        what: &'static str,
    },
}

impl Rules {
    /// Checks what belongs together.
    pub fn check(&self) -> Result<(), RulesError> {
        for (index, one) in self.endpoints.iter().enumerate() {
            let name = one.name.clone();
            let is_twice = self.endpoints[..index].iter().any(|other| other.name == name);
            if is_twice || name.as_str() == SWITCH {
                return Err(RulesError::Name(name));
            }
            if one.claims && self.public_url.is_none() {
                return Err(RulesError::NoPublicUrl(name));
            }
            if one.price.per_second == MicroUsd::default() {
                return Err(RulesError::NoPrice(name));
            }
            let wrong = |what| Err(RulesError::Time { endpoint: name.clone(), what });
            let week = Duration::from_secs(7 * 24 * 60 * 60);
            if !(Duration::from_secs(5)..=week).contains(&one.price.execution_max) {
                return wrong("execution_max_s must be 5 s to 7 days (policy.executionTimeout)");
            }
            if !(Duration::from_secs(10)..=week).contains(&one.ttl) || one.ttl < one.price.execution_max {
                return wrong("ttl_s must be 10 s to 7 days and not below execution_max_s (policy.ttl)");
            }
        }
        Ok(())
    }
}

impl EndpointRules {
    /// Whether it is for jobs of this queue and model.
    pub(crate) fn serves(&self, queue: &QueueName, model: Option<&Model>) -> bool {
        let has_model = self.models.is_empty() || model.is_none_or(|model| self.models.contains(model));
        self.queues.contains(queue) && has_model
    }
}

#[cfg(test)]
mod tests {
    use runpod::{ClientLimits, Key};

    use super::*;

    fn endpoint(name: &str) -> EndpointRules {
        let key = Key::new("a-secret-key").unwrap();
        EndpointRules {
            name: Endpoint::new(name).unwrap(),
            client: Client::new("http://127.0.0.1:1/v2/x", key, ClientLimits::default()).unwrap(),
            queues: vec![QueueName::new("sdxl").unwrap()],
            models: Vec::new(),
            dialect: Dialect::Manyhands,
            workflow: None,
            defaults: Map::new(),
            price: Price {
                per_second: MicroUsd(1),
                cold_start_max: Duration::from_secs(60),
                execution_max: Duration::from_secs(120),
                idle: Duration::from_secs(5),
            },
            ttl: Duration::from_secs(300),
            claims: false,
            in_flight_max: 1,
        }
    }

    fn check(change: impl FnOnce(&mut EndpointRules)) -> Result<(), RulesError> {
        let mut one = endpoint("a");
        change(&mut one);
        Rules { endpoints: vec![one], ..Rules::default() }.check()
    }

    #[test]
    fn rules_that_cannot_be_meant_are_refused() {
        assert_eq!(check(|_| ()), Ok(()));
        let named = |name: &str| Err(RulesError::Name(Endpoint::new(name).unwrap()));
        assert_eq!(check(|one| one.name = Endpoint::new(SWITCH).unwrap()), named(SWITCH));
        let twice = Rules { endpoints: vec![endpoint("a"), endpoint("a")], ..Rules::default() };
        assert_eq!(twice.check(), named("a"));
        assert!(matches!(check(|one| one.claims = true), Err(RulesError::NoPublicUrl(_))));
        assert!(matches!(check(|one| one.price.per_second = MicroUsd(0)), Err(RulesError::NoPrice(_))));
        assert!(matches!(check(|one| one.ttl = Duration::from_secs(100)), Err(RulesError::Time { .. })));
        assert!(matches!(check(|one| one.price.execution_max = Duration::ZERO), Err(RulesError::Time { .. })));
    }

    #[test]
    fn an_endpoint_serves_its_queues_and_models() {
        let (queue, other) = (QueueName::new("sdxl").unwrap(), QueueName::new("wan").unwrap());
        let model = |name: &str| Model::new(name).unwrap();
        let mut one = endpoint("a");
        assert!(one.serves(&queue, Some(&model("x"))) && !one.serves(&other, None));
        one.models = vec![model("x")];
        assert!(one.serves(&queue, Some(&model("x"))) && !one.serves(&queue, Some(&model("y"))));
    }

    #[test]
    fn rules_never_print_a_key() {
        assert!(!format!("{:?}", endpoint("a")).contains("secret"));
    }
}
