//! Settings: flags win over the environment, the environment over the file, the file over the defaults.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use libp2p::Multiaddr;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::command::Command;
use crate::limits::CONFIG_BYTES_MAX;
use crate::site;
use crate::tap::Tap;

/// Where the HTTP API listens unless told otherwise: this machine only.
const HTTP: &str = "127.0.0.1:8080";

/// Where peers connect unless told otherwise: everywhere, programs on libp2p's usual port and browsers on the next.
const LISTEN: [&str; 4] = [
    "/ip4/0.0.0.0/udp/4001/quic-v1",
    "/ip4/0.0.0.0/tcp/4001",
    "/ip4/0.0.0.0/udp/4002/quic-v1/webtransport",
    "/ip4/0.0.0.0/tcp/4002/ws",
];

/// In place of a folder: no page.
const NO_PAGE: &str = "none";

const LOG: &str = "warn,relay=info,service=info,store=info";

/// What the relay runs with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the HTTP API listens; port 0 picks a free one.
    pub http: SocketAddr,
    /// Where peers connect, over QUIC, TCP, WebTransport and WebSocket.
    pub listen: Vec<Multiaddr>,
    /// Addresses that others reach this relay at; those it listens on if empty.
    pub external: Vec<Multiaddr>,
    /// Folder of the identity key; `None` for a fresh identity that is not kept.
    pub data: Option<PathBuf>,
    /// Folder of the page, made by `cargo xtask web`; `None` for a relay without one.
    pub web: Option<PathBuf>,
    /// What is logged, as in `RUST_LOG`.
    pub log: String,
    /// How it is written.
    pub log_format: LogFormat,
    /// The queue; `None` for a relay without one.
    pub queue: Option<service::Settings>,
    /// A recorder of everything the relay sees, for tests.
    pub tap: Option<Tap>,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// An object a line, for programs.
    Json,
}

/// Introduces peers of a room to each other, carries the connections of those who cannot reach each other directly, and keeps
/// the queue of their jobs.
///
/// Every setting is taken from the first of: its flag, its environment variable, the file given by --config, its default.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "manyhands-relay", version, after_help = EXAMPLES, subcommand_help_heading = "Commands (without one: run the relay)")]
pub struct Flags {
    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// TOML file with any of: http, listen, external_addresses, data, web, log, log_format, and the table [queue].
    #[arg(long, value_name = "FILE", env = "MANYHANDS_RELAY_CONFIG", global = true)]
    pub config: Option<PathBuf>,
    /// Address and port of the HTTP API; port 0 picks a free one [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDRESS:PORT", env = "MANYHANDS_RELAY_HTTP")]
    pub http: Option<SocketAddr>,
    /// Where peers connect; may be repeated [default: on every interface, QUIC and TCP on port 4001, and for browsers
    /// WebTransport and WebSocket on port 4002].
    #[arg(long, value_name = "MULTIADDR", env = "MANYHANDS_RELAY_LISTEN", value_delimiter = ',')]
    pub listen: Vec<Multiaddr>,
    /// Where others reach this relay, if that is not where it listens (behind NAT, in a container); may be repeated.
    #[arg(long, value_name = "MULTIADDR", env = "MANYHANDS_RELAY_EXTERNAL_ADDRESS", value_delimiter = ',')]
    pub external_address: Vec<Multiaddr>,
    /// Folder that keeps the identity key and the queue [default: manyhands-relay in the user's data folder].
    #[arg(long, value_name = "FOLDER", env = "MANYHANDS_RELAY_DATA", global = true)]
    pub data: Option<PathBuf>,
    /// Folder of the page to serve, or `none` [default: the folder `web` beside the program or one above, if it is there].
    #[arg(long, value_name = "FOLDER", env = "MANYHANDS_RELAY_WEB")]
    pub web: Option<PathBuf>,
    /// What to log to standard error: error, warn, info, debug, trace, or module=level pairs [default: warn,relay=info,service=info,
    /// store=info].
    #[arg(long, value_name = "FILTER", env = "MANYHANDS_RELAY_LOG")]
    pub log: Option<String>,
    /// How the log is written [default: text].
    #[arg(long, value_name = "FORMAT", env = "MANYHANDS_RELAY_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Keep no queue: introduce and carry only.
    #[arg(long)]
    pub no_queue: bool,
    /// Print the first line, which tells the addresses, as JSON; of a command, everything.
    #[arg(long, global = true)]
    pub json: bool,
}

const EXAMPLES: &str = "\
Examples:
  On this machine only, ports chosen freely:
    manyhands-relay --http 127.0.0.1:0 --listen /ip4/127.0.0.1/udp/0/quic-v1 --listen /ip4/127.0.0.1/tcp/0
  On a server with a public name, behind a web server that forwards to ports 8080 (HTTP) and 4002 (WebSocket):
    manyhands-relay --external-address /dns4/relay.example/udp/4001/quic-v1 \\
                    --external-address /dns4/relay.example/tcp/4001 \\
                    --external-address /dns4/relay.example/udp/4002/quic-v1/webtransport \\
                    --external-address /dns4/relay.example/tcp/443/wss
  The same from the environment:
    MANYHANDS_RELAY_EXTERNAL_ADDRESS=/dns4/relay.example/udp/4001/quic-v1 manyhands-relay

  A token with which a friend may submit jobs to a room of the queue and do its jobs, for a day:
    manyhands-relay token --room studio --user ada --can read,submit,work --ttl 1d

Exit codes: 0 after SIGINT or SIGTERM, 2 when it cannot start (the reason is one line on standard error).";

/// The configuration file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// See [`Flags::http`].
    pub http: Option<SocketAddr>,
    /// See [`Flags::listen`].
    pub listen: Option<Vec<Multiaddr>>,
    /// See [`Flags::external_address`].
    pub external_addresses: Option<Vec<Multiaddr>>,
    /// See [`Flags::data`].
    pub data: Option<PathBuf>,
    /// See [`Flags::web`].
    pub web: Option<PathBuf>,
    /// See [`Flags::log`].
    pub log: Option<String>,
    /// See [`Flags::log_format`].
    pub log_format: Option<LogFormat>,
    /// The table of the queue, or `false` for none.
    pub queue: Option<QueueChoice>,
}

/// Whether there is a queue, and which.
#[derive(Clone, Debug, PartialEq)]
pub enum QueueChoice {
    /// None.
    Off,
    /// This one.
    On(Box<service::Settings>),
}

impl<'de> Deserialize<'de> for QueueChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReadQueue)
    }
}

/// Reads `queue = false`, `queue = true`, or the table `[queue]`, whose errors name its own keys.
struct ReadQueue;

impl<'de> Visitor<'de> for ReadQueue {
    type Value = QueueChoice;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("false, true, or the table [queue]")
    }

    fn visit_bool<E: serde::de::Error>(self, is_on: bool) -> Result<QueueChoice, E> {
        Ok(if is_on { QueueChoice::On(Box::default()) } else { QueueChoice::Off })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<QueueChoice, A::Error> {
        service::Settings::deserialize(MapAccessDeserializer::new(map))
            .map(|settings| QueueChoice::On(Box::new(settings)))
    }
}

/// Why the configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration file {path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// It is not what it should be.
    #[error("the configuration file {path} is wrong: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What and where.
        reason: String,
    },
}

impl Settings {
    /// Settings for a relay on loopback with free ports and a fresh identity, as tests want it.
    pub fn loopback() -> Self {
        let listen = [
            "/ip4/127.0.0.1/udp/0/quic-v1",
            "/ip4/127.0.0.1/tcp/0",
            "/ip4/127.0.0.1/udp/0/quic-v1/webtransport",
            "/ip4/127.0.0.1/tcp/0/ws",
        ];
        let listen = listen.map(constant).to_vec();
        let http = SocketAddr::from(([127, 0, 0, 1], 0));
        let (log, log_format, queue) = (LOG.to_owned(), LogFormat::Text, Some(service::Settings::default()));
        Self { http, listen, external: Vec::new(), data: None, web: None, log, log_format, queue, tap: None }
    }

    /// Reads the configuration file that the flags name, if any, and puts everything together.
    pub fn from_flags(flags: Flags) -> Result<Self, ConfigError> {
        let file = flags.config.as_deref().map(read).transpose()?.unwrap_or_default();
        Ok(Self::resolve(flags, file))
    }

    /// Flags (which clap has filled from the environment where they are absent), then the file, then the defaults.
    pub fn resolve(flags: Flags, file: ConfigFile) -> Self {
        let listed = |flags: Vec<Multiaddr>, file: Option<Vec<Multiaddr>>| match flags.is_empty() {
            false => Some(flags),
            true => file,
        };
        let http = flags.http.or(file.http).unwrap_or_else(|| HTTP.parse().expect("a constant address parses"));
        let listen = listed(flags.listen, file.listen).unwrap_or_else(|| LISTEN.map(constant).to_vec());
        let external = listed(flags.external_address, file.external_addresses).unwrap_or_default();
        let data = Some(flags.data.or(file.data).unwrap_or_else(default_data));
        let web = match flags.web.or(file.web) {
            Some(folder) if folder == Path::new(NO_PAGE) => None,
            Some(folder) => Some(folder),
            None => default_web(),
        };
        let log = flags.log.or(file.log).unwrap_or_else(|| LOG.to_owned());
        let log_format = flags.log_format.or(file.log_format).unwrap_or_default();
        let queue = match file.queue {
            _ if flags.no_queue => None,
            Some(QueueChoice::Off) => None,
            Some(QueueChoice::On(settings)) => Some(*settings),
            None => Some(service::Settings::default()),
        };
        Self { http, listen, external, data, web, log, log_format, queue, tap: None }
    }
}

fn read(path: &Path) -> Result<ConfigFile, ConfigError> {
    let unreadable = |reason| ConfigError::Unreadable { path: path.to_owned(), reason };
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(CONFIG_BYTES_MAX).read_to_string(&mut text)).map_err(unreadable)?;
    toml::from_str(&text).map_err(|error| {
        // The message for people spans lines; errors of this program are one.
        let reason = error.to_string().lines().map(str::trim).collect::<Vec<_>>().join(" ");
        ConfigError::Malformed { path: path.to_owned(), reason }
    })
}

/// `$XDG_DATA_HOME/manyhands-relay`, else `~/.local/share/manyhands-relay`, else in the current folder.
fn default_data() -> PathBuf {
    let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = folder("XDG_DATA_HOME").or_else(|| Some(folder("HOME")?.join(".local").join("share")));
    data.unwrap_or_default().join("manyhands-relay")
}

/// `web` beside the program, or one folder above it, as in a checkout's build folder.
fn default_web() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let beside = program.ancestors().skip(1).take(2).map(|folder| folder.join("web"));
    beside.into_iter().find(|folder| folder.join(site::LIST).is_file())
}

fn constant(text: &str) -> Multiaddr {
    text.parse().expect("a constant multiaddress parses")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn file(text: &str) -> ConfigFile {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let from_file = file(
            "http = \"127.0.0.1:1\"\nlisten = [\"/ip4/127.0.0.1/tcp/1\"]\ndata = \"/file\"\nweb = \"/page\"\nlog = \"debug\"",
        );
        let settings = Settings::resolve(Flags::default(), from_file.clone());
        assert_eq!(settings.http.port(), 1);
        assert_eq!(settings.listen, [constant("/ip4/127.0.0.1/tcp/1")]);
        assert_eq!(settings.data, Some("/file".into()));
        assert_eq!(settings.web, Some("/page".into()));
        assert_eq!(settings.log, "debug");
        let flags = Flags {
            http: Some("127.0.0.1:2".parse().unwrap()),
            listen: vec![constant("/ip4/127.0.0.1/tcp/2")],
            data: Some("/flag".into()),
            web: Some("none".into()),
            ..Flags::default()
        };
        let settings = Settings::resolve(flags, from_file);
        assert_eq!(settings.http.port(), 2);
        assert_eq!(settings.listen, [constant("/ip4/127.0.0.1/tcp/2")]);
        assert_eq!(settings.data, Some("/flag".into()));
        assert_eq!(settings.web, None);
        let settings = Settings::resolve(Flags::default(), ConfigFile::default());
        assert_eq!(settings.http, HTTP.parse().unwrap());
        assert_eq!(settings.listen, LISTEN.map(constant));
    }

    #[test]
    fn a_file_with_unknown_words_is_refused() {
        assert!(toml::from_str::<ConfigFile>("htp = \"127.0.0.1:1\"").is_err());
        let error = toml::from_str::<ConfigFile>("[queue]\nbudget = 5").unwrap_err().to_string();
        assert!(error.contains("budget") && error.contains("budgets"), "{error}");
    }

    #[test]
    fn the_queue_is_on_unless_it_is_switched_off() {
        let queue = |text: &str| Settings::resolve(Flags::default(), file(text)).queue;
        assert_eq!(queue(""), Some(service::Settings::default()));
        assert_eq!(queue("queue = false"), None);
        assert_eq!(queue("queue = true"), queue(""));
        assert!(queue("[queue]\nkill_switch = true").unwrap().kill_switch);
        let flags = Flags { no_queue: true, ..Flags::default() };
        assert_eq!(Settings::resolve(flags, file("[queue]\nkill_switch = true")).queue, None);
    }

    #[test]
    fn the_flags_are_sound() {
        Flags::command().debug_assert();
    }
}
