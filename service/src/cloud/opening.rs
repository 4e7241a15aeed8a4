//! Reads what the settings allow the cloud, with its keys, and what this relay is called by others on its queue.

use std::path::Path;

use anyhow::{Context, Result};
use data_encoding::BASE32_NOPAD;
use queue::{Owner, RouteRules};
use runpod::{Client, ClientLimits, Key, Workflow};
use std::time::Duration;

use super::Cloud;
use super::rules::{EndpointRules, Rules};
use crate::limits::{JSON_BYTES_MAX, SECRET_BYTES_MAX};
use crate::settings::{self, EndpointSettings, Settings};
use crate::state::write_secret;

/// Where the relay's name is kept in its data folder.
const NAME_FILE: &str = "queue.relay";

impl Cloud {
    /// By these settings. `data` keeps the relay's name; `base` is where it listens, which only endpoints on the same machine
    /// can reach.
    pub fn open(settings: &Settings, data: Option<&Path>, base: &str) -> Result<Self> {
        let endpoints = settings.endpoints.iter().map(endpoint).collect::<Result<Vec<_>>>()?;
        let is_here = |endpoint: &EndpointSettings| endpoint.base().starts_with("http://127.0.0.1:");
        let are_here = settings.endpoints.iter().all(is_here);
        let rules = Rules {
            budgets: settings.budgets()?,
            route: RouteRules { prefer_local: settings.prefer_local, fail_fast: settings.fail_fast },
            overflow_after: settings.overflow_after_s.map(Duration::from_secs_f64),
            await_workers: Duration::from_secs_f64(settings.await_workers_s),
            public_url: settings.public_url.clone().or_else(|| are_here.then(|| base.to_owned())),
            endpoints,
            is_switched_off: settings.kill_switch,
        };
        Ok(Self::new(rules, name(data)?)?)
    }
}

fn endpoint(settings: &EndpointSettings) -> Result<EndpointRules> {
    let name = &settings.name;
    let key = Key::new(&settings.key()?).with_context(|| format!("endpoint {name}"))?;
    let client = Client::new(&settings.base(), key, ClientLimits::default())
        .with_context(|| format!("endpoint {name}: its url is wrong"))?;
    let workflow = settings.workflow.as_ref().map(|path| -> Result<Workflow> {
        let text = settings::read("workflow", path, JSON_BYTES_MAX)?;
        Workflow::parse(&text).with_context(|| format!("the workflow {} is wrong", path.display()))
    });
    Ok(EndpointRules {
        name: name.clone(),
        client,
        queues: settings.queues.clone(),
        models: settings.models.clone(),
        dialect: settings.dialect,
        workflow: workflow.transpose()?,
        defaults: Default::default(),
        price: settings.price()?,
        ttl: settings.ttl(),
        claims: settings.claims,
        in_flight_max: usize::try_from(settings.in_flight_max).unwrap_or(usize::MAX),
    })
}

/// What others on the same queue call this relay. It stays when the relay starts again, so that it goes on with its attempts at
/// once; without a data folder others take them over when it has not been heard of for a while.
fn name(data: Option<&Path>) -> Result<Owner> {
    let fresh = || BASE32_NOPAD.encode(&rand::random::<[u8; 10]>()).to_lowercase();
    let text = match data.map(|data| data.join(NAME_FILE)) {
        None => fresh(),
        Some(path) => {
            if !path.exists() {
                write_secret(&path, &fresh()).with_context(|| format!("cannot write {}", path.display()))?;
            }
            settings::read("data", &path, SECRET_BYTES_MAX)?
        }
    };
    Owner::new(format!("relay:{}", text.trim())).context("the relay's name in its data folder is damaged; remove it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_keeps_its_name() {
        let data = tempfile::tempdir().unwrap();
        let one = name(Some(data.path())).unwrap();
        assert_eq!(name(Some(data.path())).unwrap(), one);
        assert_ne!(name(None).unwrap(), name(None).unwrap());
    }

    #[test]
    fn claims_need_a_way_to_the_relay() {
        let settings = |url: &str, rest: &str| -> Settings {
            let text = format!(
                "{rest}\n[[endpoints]]\nname = \"gpu\"\nurl = \"{url}\"\nkey_env = \"PATH\"\nqueues = [\"sdxl\"]\n\
                 price_per_second_usd = 0.00019\nclaims = true"
            );
            toml::from_str(&text).unwrap()
        };
        let open = |settings: &Settings| Cloud::open(settings, None, "http://127.0.0.1:8080");
        let far = settings("https://api.runpod.ai/v2/abc", "");
        assert!(open(&far).unwrap_err().to_string().contains("public_url"));
        let here = open(&settings("http://127.0.0.1:9/v2/emu", "")).unwrap();
        assert_eq!(here.rules().public_url.as_deref(), Some("http://127.0.0.1:8080"));
        let public = open(&settings("https://api.runpod.ai/v2/abc", "public_url = \"https://relay.example\"")).unwrap();
        assert_eq!(public.rules().public_url.as_deref(), Some("https://relay.example"));
    }
}
