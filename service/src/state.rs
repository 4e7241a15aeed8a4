//! What every handler shares.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use data_encoding::BASE32_NOPAD;
use hmac::{Hmac, Mac};
use prometheus_client::registry::Registry;
use queue::{Catalogue, UnixMs};
use sha2::Sha256;
use store::JobStore;
use tokio::sync::Semaphore;

use crate::access::Mint;
use crate::cloud::Cloud;
use crate::delivery::CloudPrices;
use crate::facade::Keeper;
use crate::limits::{SECRET_BYTES_MAX, STREAMS_MAX};
use crate::metrics::Metrics;
use crate::observed::Observed;
use crate::rates::Rates;
use crate::results::Results;
use crate::settings::{self, Settings};
use crate::waiting::Closing;
use crate::workers::Workers;

/// How often whoever waits by a manual clock looks at it.
const MANUAL_LOOK_EVERY: Duration = Duration::from_millis(2);

/// The time, or what a test says it is.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The machine's.
    System,
    /// A test's, in milliseconds.
    Manual(Arc<AtomicU64>),
    /// A test's that goes by itself, faster than the machine's.
    Fast {
        /// The moment it began at.
        start: UnixMs,
        /// When that was.
        begun: Instant,
        /// How much faster.
        speed: f64,
    },
}

impl Clock {
    /// Now.
    pub fn now(&self) -> UnixMs {
        match self {
            Self::System => {
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
            }
            Self::Manual(ms) => UnixMs(ms.load(Ordering::SeqCst)),
            Self::Fast { start, begun, speed } => start.after(begun.elapsed().mul_f64(*speed)),
        }
    }

    /// Waits until so much time has passed by this clock.
    pub async fn sleep(&self, time: Duration) {
        match self {
            Self::System => tokio::time::sleep(time).await,
            Self::Manual(_) => {
                let end = self.now().after(time);
                while self.now() < end {
                    tokio::time::sleep(MANUAL_LOOK_EVERY).await;
                }
            }
            Self::Fast { speed, .. } => tokio::time::sleep(time.div_f64(*speed)).await,
        }
    }

    /// Moves a manual clock on; others go by themselves.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual(ms) = self {
            ms.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
        }
    }
}

/// The service: cheap to clone, one for all requests.
#[derive(Clone)]
pub struct App {
    /// The queue.
    pub store: Arc<dyn JobStore>,
    /// Makes and checks tokens.
    pub mint: Arc<Mint>,
    /// The time.
    pub clock: Clock,
    /// What an operator chose.
    pub settings: Arc<Settings>,
    /// What can be asked for.
    pub catalogue: Arc<Catalogue>,
    /// Pictures and clips.
    pub results: Arc<Results>,
    /// Workers that were heard of.
    pub workers: Arc<Workers>,
    /// The cloud.
    pub cloud: Arc<Cloud>,
    /// How often who has asked.
    pub rates: Arc<Rates>,
    /// Numbers.
    pub metrics: Arc<Metrics>,
    /// All numbers of the process.
    pub registry: Arc<Registry>,
    /// Keeps the leases of foreign workers.
    pub keeper: Arc<Keeper>,
    /// Lets go of whoever waits, when the relay ends.
    pub closing: Closing,
    /// What the cloud would charge.
    pub prices: Arc<CloudPrices>,
    /// Places for event streams.
    pub(crate) streams: Arc<Semaphore>,
    /// Where clients and workers reach the relay.
    pub(crate) base: Arc<str>,
    /// Makes names of those who have none.
    pub(crate) naming: [u8; 32],
}

impl App {
    /// Opens the queue that the settings name, else the one in the data folder, and puts everything together around it; see
    /// [`Self::new`].
    pub async fn open(settings: Settings, data: Option<&Path>, base: &str, registry: Registry) -> Result<Self> {
        settings.check()?;
        let store = open_store(&settings, data).await?;
        Self::new(store, settings, data, base, Clock::System, registry)
    }

    /// Puts everything together around a store. `data` is the relay's data folder; without one nothing is kept. `base` is
    /// where the relay listens, unless the settings know a better name. The registry may hold others' numbers already.
    pub fn new(
        store: Arc<dyn JobStore>,
        settings: Settings,
        data: Option<&Path>,
        base: &str,
        clock: Clock,
        mut registry: Registry,
    ) -> Result<Self> {
        settings.check()?;
        let base = settings.public_url.clone().unwrap_or_else(|| base.to_owned());
        let key = token_key(&settings, data)?;
        let catalogue = open_catalogue(&settings)?;
        let results = Results::open(&settings.results, data, derived(&key, "file addresses"), &base)?;
        let cloud = Cloud::open(&settings, data, &base)?;
        let metrics = Arc::new(Metrics::register(&mut registry));
        let mut prices = CloudPrices::default();
        for endpoint in &settings.endpoints {
            let price = endpoint.price()?;
            prices.0.extend(endpoint.queues.iter().map(|queue| (queue.clone(), price)));
        }
        Ok(Self {
            store: Arc::new(Observed::new(store, metrics.clone())),
            mint: Arc::new(Mint::from_secret(&key)?),
            clock,
            catalogue: Arc::new(catalogue),
            results: Arc::new(results),
            workers: Arc::default(),
            cloud: Arc::new(cloud),
            rates: Arc::new(Rates::new(settings.rates)),
            metrics,
            registry: Arc::new(registry),
            keeper: Arc::default(),
            closing: Closing::default(),
            prices: Arc::new(prices),
            settings: Arc::new(settings),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            base: base.into(),
            naming: derived(&key, "names of members"),
        })
    }

    /// Forgets jobs and files that are older than the settings say; to be called now and then.
    pub async fn sweep(&self) -> Result<()> {
        let keep = u64::try_from(self.settings.keep_time().as_millis()).unwrap_or(u64::MAX);
        let before = UnixMs(self.clock.now().0.saturating_sub(keep));
        self.store.forget(before).await?;
        self.results.forget(before).await?;
        Ok(())
    }
}

/// Opens the queue that the settings name, else the one in the data folder, else one in memory.
pub async fn open_store(settings: &Settings, data: Option<&Path>) -> Result<Arc<dyn JobStore>> {
    if let (None, Some(data)) = (&settings.database, data) {
        let failed = || format!("cannot make the data folder {}", data.display());
        std::fs::create_dir_all(data).with_context(failed)?;
    }
    store::open(&database(settings, data)).await.context("cannot open the queue (database)")
}

/// The same to look at it, beside the relay that has it; for the command line.
pub async fn open_store_to_read(settings: &Settings, data: Option<&Path>) -> Result<Arc<dyn JobStore>> {
    store::open_to_read(&database(settings, data)).await.context("cannot read the queue (database)")
}

/// Where the queue is.
fn database(settings: &Settings, data: Option<&Path>) -> String {
    let in_folder = |data: &Path| format!("sqlite:{}", data.join("queue.sqlite").display());
    let default = || data.map_or("memory:".to_owned(), in_folder);
    settings.database.clone().unwrap_or_else(default)
}

/// The catalogue that the settings name, else the shipped one.
pub fn open_catalogue(settings: &Settings) -> Result<Catalogue> {
    let Some(path) = &settings.catalogue else { return Ok(Catalogue::shipped()) };
    let text = settings::read("catalogue", path, queue::limits::CATALOGUE_BYTES_MAX)?;
    Catalogue::parse(&text).with_context(|| format!("the catalogue {} is wrong", path.display()))
}

/// What makes tokens that this relay believes, without opening its queue; for the command line.
pub fn mint(settings: &Settings, data: Option<&Path>) -> Result<Mint> {
    Ok(Mint::from_secret(&token_key(settings, data)?)?)
}

/// The key that makes tokens: from the file that the settings name, else from the data folder's, which is made if it is not
/// there; without a data folder a new one.
fn token_key(settings: &Settings, data: Option<&Path>) -> Result<[u8; 32]> {
    let path = match (&settings.token_key_file, data) {
        (Some(path), _) => path.clone(),
        (None, Some(data)) => data.join("queue.key"),
        (None, None) => return Ok(rand::random()),
    };
    if !path.exists() {
        let text = BASE32_NOPAD.encode(&rand::random::<[u8; 32]>()).to_lowercase();
        write_secret(&path, &text).with_context(|| format!("cannot keep the key of tokens in {}", path.display()))?;
    }
    let text = settings::read("token_key_file", &path, SECRET_BYTES_MAX)?;
    let bytes = BASE32_NOPAD.decode(text.trim().to_uppercase().as_bytes()).ok();
    let key = bytes.and_then(|bytes| bytes.try_into().ok());
    key.with_context(|| format!("{} holds no key of tokens: 52 letters and digits of base32", path.display()))
}

/// Writes a file that only its owner can read, and that nobody has written meanwhile.
pub(crate) fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// A key for one purpose of its own.
fn derived(key: &[u8; 32], purpose: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    mac.update(format!("manyhands queue 1 {purpose}").as_bytes());
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use queue::{RoomName, UserName};

    use super::*;
    use crate::access::{Grant, Right};
    use crate::guard::Caller;
    use crate::submit::typed;

    #[test]
    fn the_key_of_tokens_is_made_once_and_only_its_owner_reads_it() {
        let data = tempfile::tempdir().unwrap();
        let settings = Settings::default();
        let key = token_key(&settings, Some(data.path())).unwrap();
        assert_eq!(token_key(&settings, Some(data.path())).unwrap(), key);
        let path = data.path().join("queue.key");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);
        }
        let shared = Settings { token_key_file: Some(path.clone()), ..Settings::default() };
        assert_eq!(token_key(&shared, None).unwrap(), key);
        std::fs::write(&path, "short").unwrap();
        let error = token_key(&shared, None).unwrap_err().to_string();
        assert!(error.contains("queue.key") && !error.contains("short"), "{error}");
        assert_ne!(token_key(&settings, None).unwrap(), token_key(&settings, None).unwrap());
    }

    #[tokio::test]
    async fn a_relay_keeps_its_queue_and_tokens_in_its_data_folder() {
        let data = tempfile::tempdir().unwrap();
        let open = || App::open(Settings::default(), Some(data.path()), "http://relay", Registry::default());
        let app = open().await.unwrap();
        let (room, user) = (RoomName::new("here").unwrap(), UserName::new("ada").unwrap());
        let until = app.clock.now().after(Duration::from_secs(60));
        let grant = Grant { room: Some(room.clone()), user, rights: [Right::Submit].into(), until };
        let token = app.mint.grant(&grant).unwrap();
        let allowed = app.mint.check(&token, Right::Submit, Some(&room), app.clock.now()).unwrap();
        let submission = serde_json::json!({ "type": "demo_fast", "prompt": "a lake" });
        let submission = serde_json::from_value(submission).unwrap();
        let jobs = typed(&app, &Caller(allowed.into()), &room, submission).await.unwrap();
        app.store.close().await;
        let again = open().await.unwrap();
        assert_eq!(again.store.job(&jobs[0].job.id).await.unwrap().as_ref(), Some(&jobs[0].job));
        assert!(again.mint.check(&token, Right::Submit, Some(&room), again.clock.now()).is_ok());
        again.store.close().await;
    }

    #[tokio::test]
    async fn what_is_wrong_with_settings_is_said_before_anything_is_made() {
        let data = tempfile::tempdir().unwrap();
        let settings = Settings { public_url: Some("relay.example".to_owned()), ..Settings::default() };
        let error = App::open(settings, Some(data.path()), "http://relay", Registry::default()).await.err().unwrap();
        assert!(format!("{error:#}").contains("public_url"), "{error:#}");
        assert_eq!(std::fs::read_dir(data.path()).unwrap().count(), 0);
    }

    #[test]
    fn keys_for_different_purposes_differ() {
        assert_ne!(derived(&[1; 32], "a"), derived(&[1; 32], "b"));
        assert_ne!(derived(&[1; 32], "a"), derived(&[2; 32], "a"));
    }
}
