//! The vendor's own SDKs, installed and run for tests: whoever speaks the contract is tested against them.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::{Path, PathBuf};
use std::process::{Command as BlockingCommand, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// The package for Python, of the version whose behaviour the contract was measured with.
pub const PYTHON_PACKAGE: &str = "runpod==1.12.0";

/// The package for Node.js, likewise.
pub const NODE_PACKAGE: &str = "runpod-sdk@1.1.2";

/// Long enough for any test, in real time: the SDKs poll once a second, and take seconds to be loaded.
pub const LONG: Duration = Duration::from_secs(120);

/// Where something lies that was installed, or why it cannot be had.
pub type Installed = Result<PathBuf, String>;

/// What was installed; `None` where it cannot be had, which is printed.
pub fn found(installed: &'static Installed, what: &str) -> Option<&'static Path> {
    match installed {
        Ok(path) => Some(path),
        Err(reason) => {
            println!("SKIPPED: {what} cannot be had: {reason}; cargo xtask test installs what it can");
            None
        }
    }
}

/// A Python in a virtual environment of its own, `folder`, that has these packages, as pip names them and as they are imported.
pub fn install_python(folder: &Path, packages: &[&str], imports: &str) -> Installed {
    let python = folder.join("bin").join("python");
    let has_them = || done(BlockingCommand::new(&python).args(["-c", &format!("import {imports}")]));
    if has_them().is_ok() {
        return Ok(python);
    }
    done(BlockingCommand::new("python3").args(["-m", "venv", "--clear"]).arg(folder))?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    done(BlockingCommand::new(&python).args(install).args(packages))?;
    has_them()?;
    Ok(python)
}

/// A folder in which Node.js finds [`NODE_PACKAGE`].
pub fn install_node(folder: &Path) -> Installed {
    done(BlockingCommand::new("node").arg("--version"))?;
    if folder.join("node_modules/runpod-sdk/package.json").is_file() {
        return Ok(folder.to_owned());
    }
    std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    let install = ["install", "--silent", "--no-audit", "--no-fund", "--prefix"];
    done(BlockingCommand::new("npm").args(install).arg(folder).arg(NODE_PACKAGE))?;
    Ok(folder.to_owned())
}

fn done(command: &mut BlockingCommand) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{name}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or("it failed").to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{name}: {last}")) }
}

/// A worker of the SDK with a handler of a few tasks; it reports `"ready"`.
pub fn worker() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sdk/worker.py")
}

/// A worker of the SDK with a handler that yields; it reports `"ready"`.
pub fn generator() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sdk/generator.py")
}

/// The addresses, the key and the name that a worker of the platform is given, for an endpoint at `base`.
pub fn worker_environment(base: &str, key: &str) -> Vec<(&'static str, String)> {
    vec![
        ("RUNPOD_WEBHOOK_GET_JOB", format!("{base}/job-take/$ID?gpu=none")),
        ("RUNPOD_WEBHOOK_POST_OUTPUT", format!("{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=none")),
        ("RUNPOD_WEBHOOK_POST_STREAM", format!("{base}/job-stream/$RUNPOD_POD_ID/$ID?gpu=none")),
        ("RUNPOD_WEBHOOK_PING", format!("{base}/ping/$RUNPOD_POD_ID?gpu=none")),
        ("RUNPOD_AI_API_KEY", key.to_owned()),
        ("RUNPOD_POD_ID", "sdk-worker".to_owned()),
        ("RUNPOD_ENDPOINT_ID", "endpoint".to_owned()),
        ("RUNPOD_SKIP_AUTO_SYSTEM_CHECKS", "true".to_owned()),
        ("RUNPOD_SKIP_GPU_CHECK", "true".to_owned()),
    ]
}

/// A running script; its reports are lines of JSON behind the word `REPORT`.
pub struct Script {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Script {
    /// Starts it with its environment.
    pub fn start(program: &Path, script: &Path, environment: &[(&str, String)]) -> Self {
        let mut child = Command::new(program)
            .arg(script)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            // Loopback is not to be asked for through a proxy.
            .env("NO_PROXY", "127.0.0.1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line that is a report of the script, and not one of the SDK's logs.
    pub async fn report(&mut self) -> Value {
        let report = async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("the script reports before it ends");
                if let Some(report) = line.strip_prefix("REPORT ") {
                    return serde_json::from_str(report).unwrap();
                }
            }
        };
        timeout(LONG, report).await.expect("the script reports in time")
    }

    /// Waits until it ends well by itself.
    pub async fn end(mut self) {
        while timeout(LONG, self.lines.next_line()).await.unwrap().unwrap().is_some() {}
        let status = timeout(LONG, self.child.wait()).await.unwrap().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Script {
    /// The SDK's worker pings from a process of its own, which a kill of the first would leave behind.
    fn drop(&mut self) {
        let Some(id) = self.child.id() else { return };
        let group = format!("-{id}");
        let _ = BlockingCommand::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
    }
}
