//! The relay as a process that can be killed, with a data folder that stays.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use queue::{Budgets, MicroUsd};
use runpod::emulator::Emulator;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{interval, timeout};

/// The endpoint's key.
pub const KEY: &str = "canary-key-of-the-endpoint";

const LISTEN: &str = "/ip4/127.0.0.1/tcp/0";

/// A start that takes longer has failed.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// Tokens for the relay's API.
#[derive(Clone, Debug)]
pub struct Tokens {
    pub member: String,
    pub operator: String,
}

/// What relays on one queue share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The database's address.
    pub database: String,
    /// The file of the key that makes tokens; the first relay makes it.
    pub key: PathBuf,
}

/// The relay's program.
pub struct Program {
    folder: TempDir,
    address: SocketAddr,
    is_naive: bool,
    child: Option<Child>,
}

impl Program {
    /// With a queue of its own, or on one with others.
    pub fn new(emulator: &Emulator, is_naive: bool, shared: Option<&Shared>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Free a moment ago; the relay takes it again after every kill.
        let address = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        let on_one =
            shared.map(|Shared { database, key }| format!("database = {database:?}\ntoken_key_file = {key:?}\n"));
        let config = format!(
            "[queue]\n{}rates.reads = {much}\nrates.submits = {much}\nrates.work = {much}\n\
             [queue.budgets]\ntotal_usd = 1000\nday_usd = 1000\nuser_day_usd = 1000\nroom_day_usd = 1000\n\
             [[queue.endpoints]]\nname = \"gpu\"\nurl = \"{base}\"\nkey_env = \"EMULATOR_KEY\"\nqueues = [\"demo\"]\n\
             price_per_second_usd = 0.00019\ncold_start_max_s = 10\nexecution_max_s = 10\nttl_s = 30\nclaims = true\n\
             in_flight_max = 150\n",
            on_one.unwrap_or_default(),
            much = "{ per_second = 1000000.0, burst = 1000000 }",
            base = emulator.base(),
        );
        std::fs::write(folder.path().join("relay.toml"), config).unwrap();
        Self { folder, address, is_naive, child: None }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn budgets(&self) -> Budgets {
        let all = MicroUsd::from_usd_down(1000.0).unwrap();
        Budgets { total: all, day: all, user_day: all, room_day: all }
    }

    /// Starts it; how long it took until it was ready.
    pub async fn start(&mut self) -> Duration {
        let begun = Instant::now();
        let mut command = self.command();
        command.args(["--json", "--web", "none", "--listen", LISTEN, "--http"]).arg(self.address.to_string());
        command.args(["--log", "warn"]).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        timeout(START_TIME_MAX, output.read_line(&mut line)).await.expect("it starts").unwrap();
        assert!(line.contains("http"), "{line:?} {:?}", child.wait().await);
        self.child = Some(child);
        let client = client();
        let url = format!("http://{}/api/health", self.address);
        let ready = async {
            let mut ticks = interval(Duration::from_millis(2));
            loop {
                ticks.tick().await;
                if client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                    return begun.elapsed();
                }
            }
        };
        timeout(START_TIME_MAX, ready).await.expect("it gets ready")
    }

    /// Completes when it dies.
    pub async fn died(&mut self) -> ExitStatus {
        self.child.as_mut().unwrap().wait().await.unwrap()
    }

    /// SIGKILL: it gets no chance to write anything down.
    pub async fn kill(&mut self) {
        self.child.take().unwrap().kill().await.unwrap();
    }

    /// SIGTERM, and its end.
    pub async fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        let id = child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
        assert_eq!(timeout(START_TIME_MAX, child.wait()).await.unwrap().unwrap().code(), Some(0));
    }

    /// Tokens as its operator makes them.
    pub async fn tokens(&self) -> Tokens {
        Tokens {
            member: self.token(&["--room", "room", "--user", "ada", "--can", "read,submit,spend"]).await,
            operator: self.token(&["--user", "root", "--can", "operate"]).await,
        }
    }

    async fn token(&self, arguments: &[&str]) -> String {
        let output = self.command().arg("token").args(arguments).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn command(&self) -> Command {
        let folder: PathBuf = self.folder.path().to_owned();
        let mut command = Command::new(env!("CARGO_BIN_EXE_manyhands-relay"));
        command.arg("--config").arg(folder.join("relay.toml")).arg("--data").arg(folder.join("data"));
        command.env("EMULATOR_KEY", KEY);
        if self.is_naive {
            command.env("MANYHANDS_NAIVE", "1");
        }
        command
    }
}

/// A client that does not wait for a relay that is dead.
pub fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap()
}
