//! A relay with its queue, as an operator runs it, and what its clients ask it.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::programs::{LOOPBACK, Process, node, relay_command, start};
use ureq::http::StatusCode;

/// The room of every job here.
pub const ROOM: &str = "studio";

/// Longer than a relay holds a question.
const PATIENCE: Duration = Duration::from_secs(320);

/// Steps of a picture that is still being painted when something happens to it.
pub const LONG: u32 = 100;

/// A relay process with a data folder of its own, until it is dropped.
pub struct Hosted {
    /// Its web address.
    pub url: String,
    /// An operator's token.
    pub operator: String,
    folder: TempDir,
    relay: Process,
}

/// Who asks a relay: an address and a token.
pub struct Client {
    url: String,
    token: String,
    agent: ureq::Agent,
}

impl Hosted {
    /// A relay as it comes.
    pub fn open() -> Self {
        Self::open_with("")
    }

    /// A relay with this configuration file.
    pub fn open_with(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("relay.toml"), config).unwrap();
        let (relay, url) = run(folder.path(), "127.0.0.1:0");
        let operator = token(folder.path(), &["--user", "me", "--can", "operate"]);
        Self { url, operator, folder, relay }
    }

    /// Its folder, in which tests may keep things too.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The room's address for workers.
    pub fn queue(&self) -> String {
        format!("{}/v2/{ROOM}", self.url)
    }

    /// Kills it and starts it again, where it was.
    pub fn kill_and_start_again(&mut self) {
        self.relay.kill().unwrap();
        self.relay.wait().unwrap();
        let address = self.url.strip_prefix("http://").unwrap();
        (self.relay, _) = run(self.folder.path(), address);
    }

    /// A token as `manyhands-relay token` prints it.
    pub fn token(&self, arguments: &[&str]) -> String {
        token(self.folder.path(), arguments)
    }

    /// An operator.
    pub fn client(&self) -> Client {
        self.client_with(&self.operator)
    }

    /// Who has this token.
    pub fn client_with(&self, token: &str) -> Client {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build();
        Client { url: self.url.clone(), token: token.to_owned(), agent: config.new_agent() }
    }

    /// The command of an operator's worker.
    pub fn worker(&self) -> std::process::Command {
        self.worker_for(&self.queue(), &self.operator)
    }

    /// The command of a worker for this queue that has this token.
    pub fn worker_for(&self, queue: &str, token: &str) -> std::process::Command {
        let mut command = node();
        command.args(["serve", "--queue", queue, "--threads", "1", "--progress", "json"]);
        command.env("MANYHANDS_TOKEN", token);
        command
    }

    /// An operator's worker that has loaded its model.
    pub fn serve(&self, arguments: &[&str]) -> Process {
        let mut worker = start(self.worker().args(arguments));
        worker.wait_for("serving").unwrap();
        worker
    }
}

impl Client {
    /// Asks; the answer's body is JSON or nothing.
    pub fn get(&self, path: &str) -> (StatusCode, Value) {
        let request = self.agent.get(format!("{}{path}", self.url)).header("Authorization", self.bearer());
        read(request.call().unwrap())
    }

    /// Posts.
    pub fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let request = self.agent.post(format!("{}{path}", self.url)).header("Authorization", self.bearer());
        read(request.content_type("application/json").send(body.to_string()).unwrap())
    }

    /// Queues one job of a type, with more fields beside the words; its id.
    pub fn submit(&self, ask: &str, more: &Value) -> String {
        let mut body = json!({ "type": ask, "prompt": crate::PROMPT });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, answer) = self.post(&format!("/api/queue/{ROOM}"), &body);
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
        answer["jobs"][0]["id"].as_str().unwrap().to_owned()
    }

    /// Queues a picture that takes a while.
    pub fn submit_long(&self, steps: u32) -> String {
        self.submit("demo_wide", &json!({ "steps": steps, "seed": 3 }))
    }

    /// A foreign client's input, as its job.
    pub fn run(&self, input: &Value) -> String {
        let (status, answer) = self.post(&format!("/v2/{ROOM}/run"), &json!({ "input": input }));
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer["id"].as_str().unwrap().to_owned()
    }

    /// The job's view.
    pub fn view(&self, id: &str) -> Value {
        let (status, view) = self.get(&format!("/api/jobs/{id}"));
        assert_eq!(status, StatusCode::OK, "{view}");
        view
    }

    /// Waits until a job has ended; how, as RunPod's clients are told.
    pub fn ended(&self, id: &str) -> Value {
        let (status, answer) = self.get(&format!("/v2/{ROOM}/status-sync/{id}?wait=300000"));
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert!(!["IN_QUEUE", "IN_PROGRESS"].contains(&answer["status"].as_str().unwrap()), "{answer}");
        answer
    }

    /// Waits until a job is completed; its view.
    pub fn completed(&self, id: &str) -> Value {
        let end = self.ended(id);
        assert_eq!(end["status"], "COMPLETED", "{end}");
        self.view(id)
    }

    /// Calls a job off.
    pub fn call_off(&self, id: &str) {
        let request = self.agent.delete(format!("{}/api/jobs/{id}", self.url)).header("Authorization", self.bearer());
        let (status, answer) = read(request.call().unwrap());
        assert_eq!(status, StatusCode::OK, "{answer}");
    }

    /// The first picture of a completed job, fetched where its view says.
    pub fn picture(&self, view: &Value) -> Vec<u8> {
        let url = view["files"][0]["url"].as_str().unwrap_or_else(|| panic!("{view}"));
        // The address is all that is needed: no token.
        let mut answer = self.agent.get(url).call().unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "image/png");
        answer.body_mut().read_to_vec().unwrap()
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }
}

fn read(mut answer: ureq::http::Response<ureq::Body>) -> (StatusCode, Value) {
    let text = answer.body_mut().with_config().limit(64 << 20).read_to_string().unwrap();
    (answer.status(), if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() })
}

fn command(folder: &Path) -> std::process::Command {
    let mut command = relay_command();
    command.arg("--config").arg(folder.join("relay.toml")).arg("--data").arg(folder.join("data"));
    command
}

fn run(folder: &Path, http: &str) -> (Process, String) {
    let mut command = command(folder);
    command.args(["--json", "--log", "warn", "--http", http, "--web", "none"]).args(LOOPBACK);
    let mut relay = start(&mut command);
    let url = relay.json().unwrap()["http"].as_str().unwrap().to_owned();
    (relay, url)
}

fn token(folder: &Path, arguments: &[&str]) -> String {
    let output = command(folder).arg("token").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
