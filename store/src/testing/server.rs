//! Finds a Postgres server for tests, or starts one.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use sqlx::{Connection, Executor, PgConnection};
use tempfile::TempDir;

/// The server to use, as an address; tests make a schema of their own in it.
const ADDRESS: &str = "MANYHANDS_TEST_POSTGRES";

/// Where Debian and its kin keep the programs, below a folder for each version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Whether a server that is started waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// As in earnest.
    On,
    /// For tests of what is answered.
    Off,
}

/// An empty queue on a Postgres server: the one named by `MANYHANDS_TEST_POSTGRES`, otherwise one that is started here and
/// ends when this is dropped.
#[derive(Debug)]
pub struct Postgres {
    url: String,
    /// Held until it is dropped.
    _server: Option<Server>,
}

#[derive(Debug)]
struct Server {
    process: Child,
    stop: PathBuf,
    /// Who runs it, if not who runs the test.
    user: Option<(u32, u32)>,
    folder: TempDir,
}

impl Postgres {
    /// Finds or starts one; the error says why there is none.
    pub async fn start(sync: Sync) -> Result<Self, String> {
        if let Ok(address) = std::env::var(ADDRESS) {
            let url = schema(&address).await.map_err(|error| format!("{ADDRESS} cannot be used: {error}"))?;
            return Ok(Self { url, _server: None });
        }
        let server = Server::start(sync)?;
        let url = format!("postgres://postgres@localhost/postgres?host={}", server.folder.path().display());
        Ok(Self { url, _server: Some(server) })
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// Makes a schema in somebody's database and gives the address of it.
async fn schema(address: &str) -> Result<String, sqlx::Error> {
    let name = format!("manyhands_test_{:016x}", rand::random::<u64>());
    let mut connection = PgConnection::connect(address).await?;
    connection.execute(sqlx::AssertSqlSafe(format!("CREATE SCHEMA {name}"))).await?;
    connection.close().await?;
    let mark = if address.contains('?') { '&' } else { '?' };
    Ok(format!("{address}{mark}options=-csearch_path%3D{name}"))
}

impl Server {
    fn start(sync: Sync) -> Result<Self, String> {
        let programs = programs().ok_or_else(|| {
            format!(
                "{ADDRESS} is not set, and there is no initdb in {DEBIAN}/*/bin nor on the PATH; install postgresql"
            )
        })?;
        let folder = tempfile::Builder::new().prefix("manyhands-postgres-").tempdir();
        let folder = folder.map_err(|error| format!("there is no temporary folder: {error}"))?;
        let user = unprivileged(folder.path())?;
        let data = folder.path().join("data");
        let mut initdb = command(&programs.join("initdb"), user, folder.path());
        initdb.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale", "--no-sync", "-D"]);
        let made = initdb.arg(&data).output().map_err(|error| format!("initdb does not start: {error}"))?;
        if !made.status.success() {
            return Err(format!("initdb failed: {}", String::from_utf8_lossy(&made.stderr)));
        }
        let mut postgres = command(&programs.join("postgres"), user, folder.path());
        postgres.arg("-D").arg(&data).arg("-k").arg(folder.path());
        // The socket's folder is open to nobody else.
        postgres.args(["-c", "listen_addresses=", "-c", "unix_socket_permissions=0777"]);
        if sync == Sync::Off {
            postgres.args(["-c", "fsync=off", "-c", "full_page_writes=off"]);
        }
        postgres.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let process = postgres.spawn().map_err(|error| format!("postgres does not start: {error}"))?;
        let mut server = Self { process, stop: programs.join("pg_ctl"), user, folder };
        server.wait()?;
        Ok(server)
    }

    /// Waits until it takes connections.
    fn wait(&mut self) -> Result<(), String> {
        let log = self.process.stderr.take().ok_or("postgres has no log")?;
        let (ready, is_ready) = mpsc::channel();
        // Reads on after that, so that the server never waits for its log.
        std::thread::spawn(move || {
            let mut last = String::new();
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                if line.contains("database system is ready to accept connections") {
                    let _ = ready.send(Ok(()));
                }
                last = line;
            }
            let _ = ready.send(Err(last));
        });
        match is_ready.recv() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(last)) => Err(format!("postgres ended at once: {last}")),
            Err(error) => Err(format!("postgres ended at once: {error}")),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut stop = command(&self.stop, self.user, self.folder.path());
        stop.args(["stop", "--silent", "--mode=immediate", "-D"]).arg(self.folder.path().join("data"));
        if !stop.status().is_ok_and(|status| status.success()) {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

/// The folder of initdb and postgres, of the newest version there is.
fn programs() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(DEBIAN)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, folder)| folder.join("initdb").is_file() && folder.join("postgres").is_file())
        .collect();
    found.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = || std::env::split_paths(&path).find(|folder| folder.join("initdb").is_file());
    found.pop().map(|(_, folder)| folder).or_else(on_path)
}

/// Postgres refuses to run as root: then the folder is given to somebody else, who runs it.
fn unprivileged(folder: &Path) -> Result<Option<(u32, u32)>, String> {
    let own = std::fs::metadata(folder).map_err(|error| error.to_string())?.uid();
    if own != 0 {
        return Ok(None);
    }
    let ids = |flag: &str, name: &str| {
        let output = Command::new("id").args([flag, name]).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    let user = ["postgres", "nobody"].into_iter().find_map(|name| Some((ids("-u", name)?, ids("-g", name)?)));
    let (uid, gid) = user.ok_or("Postgres refuses to run as root, and there is neither a user postgres nor nobody")?;
    chown(folder, Some(uid), Some(gid)).map_err(|error| error.to_string())?;
    Ok(Some((uid, gid)))
}

fn command(program: &Path, user: Option<(u32, u32)>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).env("LC_ALL", "C");
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}
