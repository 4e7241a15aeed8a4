//! The vendor's own Python SDK, unmodified, against the emulator: what holds for it holds for the real endpoint's clients
//! and workers. Printed as skipped where Python or the package cannot be had.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::{Path, PathBuf};
use std::process::{Command as BlockingCommand, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use runpod::emulator::{Behaviour, Emulator, Orders, Settings, Workers};
use runpod::{Client, ClientLimits, End, Key, RunRequest, Status};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// The version whose behaviour the contract was measured with.
const SDK: &str = "runpod==1.12.0";

/// Long enough for any test, in real time: the SDK polls once a second, and takes seconds to be imported.
const LONG: Duration = Duration::from_secs(120);

const KEY: &str = "rpa_SDK0123456789";

/// A Python that has the SDK; `None` where it cannot be had, which is printed once.
fn python() -> Option<&'static Path> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match PYTHON.get_or_init(installed) {
        Ok(python) => Some(python),
        Err(reason) => {
            println!("SKIPPED: the runpod SDK cannot be had: {reason}");
            None
        }
    }
}

/// Finds the SDK in a virtual environment of the target folder, or puts it there.
fn installed() -> Result<PathBuf, String> {
    // The emulator's program lies in target/debug.
    let target = Path::new(env!("CARGO_BIN_EXE_runpod-emulator")).parent().unwrap().parent().unwrap();
    let folder = target.join("python").join("runpod-sdk");
    let python = folder.join("bin").join("python");
    let has_sdk = || done(BlockingCommand::new(&python).args(["-c", "import runpod"]));
    if has_sdk().is_ok() {
        return Ok(python);
    }
    done(BlockingCommand::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    done(BlockingCommand::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", SDK]))?;
    has_sdk()?;
    Ok(python)
}

fn done(command: &mut BlockingCommand) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or("it failed").to_owned();
    if output.status.success() { Ok(()) } else { Err(last) }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(name)
}

/// A script of the SDK with its environment; one line of JSON at a time comes out of it.
struct Script {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Script {
    fn start(python: &Path, name: &str, environment: &[(&str, String)]) -> Self {
        let mut child = Command::new(python)
            .arg(script(name))
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
    async fn report(&mut self) -> Value {
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

    async fn end(mut self) {
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

fn client(emulator: &Emulator) -> Client {
    Client::new(&emulator.base(), Key::new(KEY).unwrap(), ClientLimits::default()).unwrap()
}

fn client_environment(emulator: &Emulator) -> Vec<(&'static str, String)> {
    vec![("RUNPOD_ENDPOINT_BASE_URL", format!("http://{}/v2", emulator.address())), ("RUNPOD_API_KEY", KEY.to_owned())]
}

/// The four addresses, the key and the name that a worker of the platform is given.
fn worker_environment(emulator: &Emulator) -> Vec<(&'static str, String)> {
    let base = emulator.base();
    vec![
        ("RUNPOD_WEBHOOK_GET_JOB", format!("{base}/job-take/$ID?gpu=none")),
        ("RUNPOD_WEBHOOK_POST_OUTPUT", format!("{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=none")),
        ("RUNPOD_WEBHOOK_POST_STREAM", format!("{base}/job-stream/$RUNPOD_POD_ID/$ID?gpu=none")),
        ("RUNPOD_WEBHOOK_PING", format!("{base}/ping/$RUNPOD_POD_ID?gpu=none")),
        ("RUNPOD_AI_API_KEY", KEY.to_owned()),
        ("RUNPOD_POD_ID", "sdk-worker".to_owned()),
        ("RUNPOD_ENDPOINT_ID", "emu".to_owned()),
        ("RUNPOD_PING_INTERVAL", "1000".to_owned()),
        ("RUNPOD_SKIP_AUTO_SYSTEM_CHECKS", "true".to_owned()),
        ("RUNPOD_SKIP_GPU_CHECK", "true".to_owned()),
    ]
}

async fn external() -> Emulator {
    let settings = Settings { key: KEY.to_owned(), workers: Workers::External, ..Settings::default() };
    Emulator::start(settings).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdks_client_runs_waits_streams_cancels_purges_and_asks_for_health() {
    let Some(python) = python() else { return };
    let settings = Settings { key: KEY.to_owned(), speed: 20.0, workers_max: 1, ..Settings::default() };
    let emulator = Emulator::start(settings).await.unwrap();
    // The fourth job does not end before it is cancelled, and the fifth keeps the one worker busy.
    let next = vec![None, None, None, Some(Behaviour::Overrun), Some(Behaviour::Overrun)];
    emulator.behave(Orders { next, ..Orders::default() });
    let mut script = Script::start(python, "client.py", &client_environment(&emulator));
    let report = script.report().await;
    assert_eq!(report["output"]["seed"], json!(7), "{report}");
    assert_eq!(report["status"], json!("COMPLETED"));
    assert_eq!(report["run_sync"]["seed"], json!(8));
    assert_eq!(report["stream"], json!(["one", {"two": 2}]));
    assert_eq!(report["cancel"], json!("CANCELLED"));
    assert_eq!(report["cancelled"], json!("CANCELLED"));
    assert_eq!(report["health"]["jobs"]["completed"], json!(3));
    assert_eq!(report["purge"], json!({"removed": 2, "status": "completed"}));
    assert_eq!(report["unauthorised"], json!(true), "a wrong key is an error of the SDK's");
    script.end().await;
    assert!(emulator.meter().doubled().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdks_worker_takes_reports_and_delivers_what_our_client_asks_for() {
    let Some(python) = python() else { return };
    let emulator = external().await;
    let client = client(&emulator);
    let mut worker = Script::start(python, "worker.py", &worker_environment(&emulator));
    assert_eq!(worker.report().await, json!("ready"));

    let job = client.run(&RunRequest::new(json!({"task": "echo", "value": [1, "ä"]}))).await.unwrap();
    let last = client.wait(&job.id, LONG, |_| ()).await.unwrap();
    assert_eq!(last.end(), Some(End::Completed(json!({"echo": [1, "ä"]}))));
    assert_eq!(last.worker.as_deref(), Some("sdk-worker"));

    let job = client.run(&RunRequest::new(json!({"task": "raise"}))).await.unwrap();
    let last = client.wait(&job.id, LONG, |_| ()).await.unwrap();
    let Some(End::Failed(failure)) = last.end() else { panic!("{last:?}") };
    assert_eq!(failure.complaint.message, "it broke");
    assert!(failure.complaint.traceback.unwrap().contains("worker.py"));

    let job = client.run(&RunRequest::new(json!({"task": "dance"}))).await.unwrap();
    let last = client.wait(&job.id, LONG, |_| ()).await.unwrap();
    let Some(End::Failed(failure)) = last.end() else { panic!("{last:?}") };
    assert_eq!(failure.complaint.message, "Unknown task: dance");

    let job = client.run(&RunRequest::new(json!({"task": "nothing"}))).await.unwrap();
    let last = client.wait(&job.id, LONG, |_| ()).await.unwrap();
    let Some(End::Failed(failure)) = last.end() else { panic!("{last:?}") };
    assert_eq!(failure.kind.as_str(), "result_missing");

    let job = client.run(&RunRequest::new(json!({"task": "progress"}))).await.unwrap();
    assert_eq!(worker.report().await, json!("half"));
    let status = client.status(&job.id).await.unwrap();
    assert_eq!(status.status, Status::InProgress);
    assert_eq!(client.cancel(&job.id).await.unwrap().status, Status::Cancelled);
    assert_eq!(worker.report().await, json!("stopped"), "the handler is cancelled by the stop channel");

    let job = client.run(&RunRequest::new(json!({"task": "echo", "value": "after"}))).await.unwrap();
    let last = client.wait(&job.id, LONG, |_| ()).await.unwrap();
    assert_eq!(last.end(), Some(End::Completed(json!({"echo": "after"}))));
    assert_eq!(emulator.meter().runs_in_all(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generator_of_the_sdk_streams_item_by_item() {
    let Some(python) = python() else { return };
    let emulator = external().await;
    let client = client(&emulator);
    let mut worker = Script::start(python, "generator.py", &worker_environment(&emulator));
    assert_eq!(worker.report().await, json!("ready"));
    let job = client.run(&RunRequest::new(json!({"count": 3}))).await.unwrap();
    let last = client.wait(&job.id, LONG, |_| ()).await.unwrap();
    let items = [json!({"item": 0}), json!({"item": 1}), json!({"item": 2})];
    assert_eq!(last.end(), Some(End::Completed(json!(items))), "return_aggregate_stream");
    assert_eq!(client.stream(&job.id).await.unwrap().items, items);
    assert!(client.stream(&job.id).await.unwrap().is_over());

    let job = client.run(&RunRequest::new(json!({"count": 1, "breaks": true}))).await.unwrap();
    let last = client.wait(&job.id, LONG, |_| ()).await.unwrap();
    let Some(End::Failed(failure)) = last.end() else { panic!("{last:?}") };
    assert_eq!(failure.complaint.message, "handler: it broke");
    assert_eq!(client.stream(&job.id).await.unwrap().items, [json!({"item": 0})]);
}

#[tokio::test(flavor = "multi_thread")]
async fn client_and_worker_of_the_sdk_meet_at_the_emulator() {
    let Some(python) = python() else { return };
    let emulator = external().await;
    let mut worker = Script::start(python, "worker.py", &worker_environment(&emulator));
    assert_eq!(worker.report().await, json!("ready"));
    let mut script = Script::start(python, "meet.py", &client_environment(&emulator));
    assert_eq!(script.report().await, json!({"echo": "hello"}));
    script.end().await;
}
