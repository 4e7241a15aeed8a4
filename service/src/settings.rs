//! Settings of the queue: the table `[queue]` of the relay's file. Every one has a default that works on one machine.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use queue::{Budgets, Endpoint, MicroUsd, Model, Price, QueueName};
use runpod::Dialect;
use serde::Deserialize;

use crate::limits::{KEEP_TIME, SECRET_BYTES_MAX, WORKER_SEEN_TIME};
use crate::rates::{RateSettings, Subnet};

/// Where RunPod answers unless an endpoint says otherwise.
pub const RUNPOD_URL: &str = "https://api.runpod.ai/v2";

/// The table `[queue]`. An unknown key is refused with the names of those that are known.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `sqlite:FILE`, `postgres://USER:PASSWORD@HOST/DATABASE`, or `memory:` [default: `queue.sqlite` in the data folder].
    pub database: Option<String>,
    /// An own catalogue of job types [default: the shipped one].
    pub catalogue: Option<PathBuf>,
    /// Where results are kept.
    pub results: ResultsSettings,
    /// Where clients and workers reach this relay, without a slash at the end [default: where it listens].
    pub public_url: Option<String>,
    /// Other names that clients may call this relay by, with port unless it is the usual one.
    pub hosts: Vec<String>,
    /// Pages from other origins that may use the API, as `https://page.example`.
    pub cors_origins: Vec<String>,
    /// Whether a proxy stands before the relay, so that clients are told apart by `proxy_header`.
    pub behind_proxy: bool,
    /// The header in which the proxy names the client; read only where the connection comes from `trusted_proxies`.
    pub proxy_header: String,
    /// Addresses or subnets of the proxies.
    pub trusted_proxies: Vec<Subnet>,
    /// File of the key that makes and checks tokens; shared by relays on one queue [default: `queue.key` in the data folder,
    /// made if it is not there].
    pub token_key_file: Option<PathBuf>,
    /// Whether members of a room who prove it get the right to spend.
    pub rooms_may_spend: bool,
    /// How often one client may ask.
    pub rates: RateSettings,
    /// How long finished jobs and their files are kept, in days.
    pub keep_days: u32,
    /// Ceilings of what may be spent. All must allow it, and all are 0 unless set.
    pub budgets: BudgetSettings,
    /// Endpoints of the cloud.
    pub endpoints: Vec<EndpointSettings>,
    /// Stops all spending.
    pub kill_switch: bool,
    /// The cloud only for what no worker can do at all.
    pub prefer_local: bool,
    /// Refuse what nobody can do now.
    pub fail_fast: bool,
    /// Instead of what job types say: how late a job must be before it may overflow, in seconds.
    pub overflow_after_s: Option<f64>,
    /// For how long after its start the relay waits for workers that it has not heard of yet, before it pays for what they can
    /// do, or refuses it; in seconds.
    pub await_workers_s: f64,
}

/// The table `[queue.results]`: a folder, unless a bucket is named.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResultsSettings {
    /// The folder [default: `results` in the data folder].
    pub folder: Option<PathBuf>,
    /// An S3 bucket instead.
    pub bucket: Option<String>,
    /// Its server, as `https://ACCOUNT.r2.cloudflarestorage.com` [default: Amazon's].
    pub endpoint: Option<String>,
    /// Its region [default: `us-east-1`; R2: `auto`].
    pub region: Option<String>,
    /// The id of the key.
    pub key_id: Option<String>,
    /// File that holds the key's secret.
    pub secret_file: Option<PathBuf>,
    /// Environment variable that holds it.
    pub secret_env: Option<String>,
}

/// The table `[queue.budgets]`, in US dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetSettings {
    /// Of this queue for ever.
    pub total_usd: f64,
    /// Of a day.
    pub day_usd: f64,
    /// Of each user on a day.
    pub user_day_usd: f64,
    /// Of each room on a day.
    pub room_day_usd: f64,
}

/// One `[[queue.endpoints]]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointSettings {
    /// What the ledger and explanations call it.
    pub name: Endpoint,
    /// RunPod's id of it; needed unless `url` is given.
    pub id: Option<String>,
    /// Where it answers [default: `https://api.runpod.ai/v2/ID`].
    pub url: Option<String>,
    /// File that holds RunPod's key.
    pub key_file: Option<PathBuf>,
    /// Environment variable that holds it.
    pub key_env: Option<String>,
    /// Queues of job types that it serves.
    pub queues: Vec<QueueName>,
    /// Models that it has [default: whatever these queues ask for].
    #[serde(default)]
    pub models: Vec<Model>,
    /// Which worker it runs [default: `manyhands serve`].
    #[serde(default = "manyhands")]
    pub dialect: Dialect,
    /// Template of a ComfyUI workflow; only for that dialect.
    pub workflow: Option<PathBuf>,
    /// What a second of its worker costs, in US dollars.
    pub price_per_second_usd: f64,
    /// The longest cold start that is paid for.
    #[serde(default = "seconds::<60>")]
    pub cold_start_max_s: u64,
    /// The longest a job may run there.
    #[serde(default = "seconds::<120>")]
    pub execution_max_s: u64,
    /// How long it keeps a job that nobody runs.
    #[serde(default = "seconds::<300>")]
    pub ttl_s: u64,
    /// How long its workers idle, paid, after a job.
    #[serde(default = "seconds::<5>")]
    pub idle_s: u64,
    /// Whether its workers ask the relay before they begin, so that an attempt that was lost costs nothing.
    #[serde(default)]
    pub claims: bool,
    /// Attempts that may be open at once.
    #[serde(default = "seconds::<4>")]
    pub in_flight_max: u64,
}

/// A setting that cannot be used; says which, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// What it says is impossible.
    #[error("{setting}: {problem}")]
    Wrong {
        /// Its name, as in the file.
        setting: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A file it names cannot be read.
    #[error("{setting}: cannot read {path}: {reason}")]
    Unreadable {
        /// Its name, as in the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            database: None,
            catalogue: None,
            results: ResultsSettings::default(),
            public_url: None,
            hosts: Vec::new(),
            cors_origins: Vec::new(),
            behind_proxy: false,
            proxy_header: "x-forwarded-for".to_owned(),
            trusted_proxies: [[127, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into()].map(Subnet::one).to_vec(),
            token_key_file: None,
            rooms_may_spend: false,
            rates: RateSettings::default(),
            keep_days: u32::try_from(KEEP_TIME.as_secs() / 86_400).expect("a few days"),
            budgets: BudgetSettings::default(),
            endpoints: Vec::new(),
            kill_switch: false,
            prefer_local: false,
            fail_fast: false,
            overflow_after_s: None,
            await_workers_s: WORKER_SEEN_TIME.as_secs_f64(),
        }
    }
}

impl Settings {
    /// Finds what no type rules out; called before anything is opened.
    pub fn check(&self) -> Result<(), SettingsError> {
        self.budgets()?;
        for origin in &self.cors_origins {
            let is_origin = origin.split_once("://").is_some_and(|(scheme, host)| {
                ["http", "https"].contains(&scheme) && !host.is_empty() && !host.contains(['/', '*', '@', ' '])
            });
            if !is_origin {
                return Err(wrong("cors_origins", format!("{origin:?} is no origin; write https://page.example")));
            }
        }
        if let Some(url) = &self.public_url
            && (!(url.starts_with("http://") || url.starts_with("https://")) || url.ends_with('/') || url.contains('?'))
        {
            return Err(wrong("public_url", "must be as https://relay.example, with no slash at its end".to_owned()));
        }
        if axum::http::HeaderName::try_from(&self.proxy_header).is_err() {
            return Err(wrong("proxy_header", "is no name of a header; x-forwarded-for is usual".to_owned()));
        }
        if self.overflow_after_s.is_some_and(|seconds| !(0.0..=86_400.0).contains(&seconds)) {
            return Err(wrong("overflow_after_s", "must be 0 to 86400".to_owned()));
        }
        if !(0.0..=86_400.0).contains(&self.await_workers_s) {
            return Err(wrong("await_workers_s", "must be 0 to 86400".to_owned()));
        }
        if self.keep_days == 0 {
            return Err(wrong("keep_days", "must be at least 1".to_owned()));
        }
        let mut names = BTreeSet::new();
        for endpoint in &self.endpoints {
            endpoint.check()?;
            if !names.insert(&endpoint.name) {
                return Err(wrong("endpoints", format!("two are called {}; rename one", endpoint.name)));
            }
        }
        Ok(())
    }

    /// The budgets, rounded down to millionths of a dollar.
    pub fn budgets(&self) -> Result<Budgets, SettingsError> {
        let of = |usd| {
            MicroUsd::from_usd_down(usd).ok_or_else(|| wrong("budgets", format!("{usd} is no amount of dollars")))
        };
        let BudgetSettings { total_usd, day_usd, user_day_usd, room_day_usd } = self.budgets;
        Ok(Budgets {
            total: of(total_usd)?,
            day: of(day_usd)?,
            user_day: of(user_day_usd)?,
            room_day: of(room_day_usd)?,
        })
    }

    /// How long finished jobs and their files are kept.
    pub fn keep_time(&self) -> Duration {
        Duration::from_secs(u64::from(self.keep_days) * 86_400)
    }
}

impl EndpointSettings {
    /// Where it answers.
    pub fn base(&self) -> String {
        let default = || format!("{RUNPOD_URL}/{}", self.id.as_deref().unwrap_or_default());
        self.url.as_ref().map_or_else(default, |url| url.trim_end_matches('/').to_owned())
    }

    /// RunPod's key, read from where the settings say.
    pub fn key(&self) -> Result<String, SettingsError> {
        let key = secret("key_file or key_env", self.key_file.as_deref(), self.key_env.as_deref())?;
        key.ok_or_else(|| wrong("endpoints", format!("{}: name a key_file or a key_env", self.name)))
    }

    /// What it costs.
    pub fn price(&self) -> Result<Price, SettingsError> {
        let usd = self.price_per_second_usd;
        let per_second = MicroUsd::from_usd_up(usd).filter(|price| *price > MicroUsd::default());
        let problem = || format!("{}: price_per_second_usd must be above 0, as RunPod's page tells it", self.name);
        Ok(Price {
            per_second: per_second.ok_or_else(|| wrong("endpoints", problem()))?,
            cold_start_max: Duration::from_secs(self.cold_start_max_s),
            execution_max: Duration::from_secs(self.execution_max_s),
            idle: Duration::from_secs(self.idle_s),
        })
    }

    /// See [`Self::ttl_s`].
    pub fn ttl(&self) -> Duration {
        Duration::from_secs(self.ttl_s)
    }

    fn check(&self) -> Result<(), SettingsError> {
        let problem = |problem: &str| Err(wrong("endpoints", format!("{}: {problem}", self.name)));
        self.price()?;
        match (&self.id, &self.url) {
            (None, None) => return problem("name its id, or its url"),
            (_, Some(url)) if !url.starts_with("https://") && !url.starts_with("http://127.0.0.1") => {
                return problem("its url must begin with https://, because the key is sent to it");
            }
            (Some(_), None) | (_, Some(_)) => {}
        }
        if self.queues.is_empty() {
            return problem("name the queues it serves");
        }
        if self.workflow.is_some() != (self.dialect == Dialect::ComfyUi) {
            return problem("a workflow belongs to the dialect comfyui, and that needs one");
        }
        // RunPod's own bounds (`policy`).
        let day = 86_400;
        if !(5..=day).contains(&self.execution_max_s) || !(10..=day).contains(&self.ttl_s) {
            return problem("execution_max_s must be 5 to 86400, ttl_s 10 to 86400");
        }
        if self.cold_start_max_s > day || self.idle_s > day || self.in_flight_max == 0 {
            return problem("cold_start_max_s and idle_s may be 86400, and in_flight_max at least 1");
        }
        Ok(())
    }
}

/// A secret from a file or the environment, without the white space around it; `None` if neither is named.
pub fn secret(
    setting: &'static str,
    file: Option<&Path>,
    variable: Option<&str>,
) -> Result<Option<String>, SettingsError> {
    let text = match (file, variable) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(wrong(setting, "name a file or a variable, not both".to_owned())),
        (Some(path), None) => read(setting, path, SECRET_BYTES_MAX)?,
        (None, Some(name)) => {
            std::env::var(name).map_err(|_| wrong(setting, format!("the environment has no text in {name}")))?
        }
    };
    let text = text.trim();
    if text.is_empty() { Err(wrong(setting, "is empty".to_owned())) } else { Ok(Some(text.to_owned())) }
}

/// A file's text, up to so many bytes.
pub(crate) fn read(setting: &'static str, path: &Path, bytes_max: usize) -> Result<String, SettingsError> {
    let unreadable = |reason| SettingsError::Unreadable { setting, path: path.to_owned(), reason };
    let mut text = String::new();
    let mut file = File::open(path).map_err(unreadable)?.take(bytes_max as u64 + 1);
    file.read_to_string(&mut text).map_err(unreadable)?;
    if text.len() > bytes_max {
        return Err(wrong(setting, format!("{} is larger than {bytes_max} bytes", path.display())));
    }
    Ok(text)
}

pub(crate) fn wrong(setting: &'static str, problem: String) -> SettingsError {
    SettingsError::Wrong { setting, problem }
}

fn manyhands() -> Dialect {
    Dialect::Manyhands
}

fn seconds<const N: u64>() -> u64 {
    N
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Settings, String> {
        let settings: Settings = toml::from_str(text).map_err(|error| error.to_string())?;
        settings.check().map_err(|error| error.to_string())?;
        Ok(settings)
    }

    const ENDPOINT: &str = "[[endpoints]]\nname = \"gpu\"\nid = \"abc\"\nkey_env = \"PATH\"\nqueues = [\"sdxl\"]\n\
                            price_per_second_usd = 0.00019\n";

    #[test]
    fn nothing_need_be_set_and_then_nothing_may_be_spent() {
        let settings = settings("").unwrap();
        assert_eq!(settings, Settings::default());
        assert_eq!(settings.budgets().unwrap(), Budgets::default());
        assert_eq!(settings.keep_time(), KEEP_TIME);
        assert!(!settings.behind_proxy && !settings.rooms_may_spend && settings.cors_origins.is_empty());
    }

    #[test]
    fn an_unknown_key_is_answered_with_those_that_are_known() {
        let error = settings("pubic_url = \"https://relay.example\"").unwrap_err();
        assert!(error.contains("pubic_url") && error.contains("`public_url`"), "{error}");
        assert!(settings("[budgets]\nday = 1").unwrap_err().contains("day_usd"));
        assert!(settings(&format!("{ENDPOINT}price = 1")).unwrap_err().contains("price_per_second_usd"));
    }

    #[test]
    fn an_endpoint_needs_little_and_costs_what_its_price_says() {
        let settings = settings(ENDPOINT).unwrap();
        let [endpoint] = settings.endpoints.as_slice() else { panic!("one endpoint") };
        assert_eq!(endpoint.base(), "https://api.runpod.ai/v2/abc");
        assert_eq!(endpoint.price().unwrap().worst(), MicroUsd(185 * 190));
        assert_eq!((endpoint.ttl(), endpoint.claims), (Duration::from_secs(300), false));
        assert!(!endpoint.key().unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_opened() {
        for (text, word) in [
            ("cors_origins = [\"*\"]", "cors_origins"),
            ("cors_origins = [\"https://a.example/\"]", "cors_origins"),
            ("public_url = \"relay.example\"", "public_url"),
            ("trusted_proxies = [\"proxy.example\"]", "proxy.example"),
            ("proxy_header = \"a b\"", "proxy_header"),
            ("keep_days = 0", "keep_days"),
            ("[budgets]\nday_usd = nan", "budgets"),
            ("[budgets]\nday_usd = -1.0", "budgets"),
            (&ENDPOINT.replace("id = \"abc\"", "url = \"http://evil.example\""), "https://"),
            (&ENDPOINT.replace("id = \"abc\"\n", ""), "its id"),
            (&ENDPOINT.replace("0.00019", "0"), "price_per_second_usd"),
            (&ENDPOINT.replace("\"sdxl\"", ""), "queues"),
            (&format!("{ENDPOINT}ttl_s = 5"), "ttl_s"),
            (&format!("{ENDPOINT}dialect = \"comfyui\""), "workflow"),
            (&format!("{ENDPOINT}{ENDPOINT}"), "two are called gpu"),
        ] {
            let error = settings(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn a_secret_comes_from_one_place_and_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, " abc\n").unwrap();
        assert_eq!(secret("key", Some(&path), None).unwrap().as_deref(), Some("abc"));
        assert!(secret("key", Some(&path), Some("PATH")).is_err());
        assert_eq!(secret("key", None, None).unwrap(), None);
        std::fs::write(&path, "a".repeat(SECRET_BYTES_MAX + 1)).unwrap();
        assert!(secret("key", Some(&path), None).is_err());
        std::fs::write(&path, "\n").unwrap();
        assert!(secret("key", Some(&path), None).is_err());
    }
}
