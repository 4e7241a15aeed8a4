//! The binary as its operator meets it.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::place::get;

const LISTEN: &str = "/ip4/127.0.0.1/udp/0/quic-v1,/ip4/127.0.0.1/tcp/0,\
                      /ip4/127.0.0.1/udp/0/quic-v1/webtransport,/ip4/127.0.0.1/tcp/0/ws";

fn command(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_manyhands-relay"));
    command
        .env("MANYHANDS_RELAY_DATA", data)
        .env("MANYHANDS_RELAY_HTTP", "127.0.0.1:0")
        .env("MANYHANDS_RELAY_WEB", "none")
        .env("MANYHANDS_RELAY_LISTEN", LISTEN)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line
}

fn start(command: &mut Command) -> (Child, Value) {
    let mut child = command.spawn().unwrap();
    let line = first_line(&mut child);
    let Ok(line) = serde_json::from_str(&line) else { panic!("{line:?} {:?}", child.wait_with_output()) };
    (child, line)
}

fn terminate(mut child: Child) {
    let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

fn assert_cannot_start(output: Output, says: &[&str]) {
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    assert!(says.iter().all(|word| text.contains(word)), "{text}");
}

#[tokio::test]
async fn the_first_line_tells_where_it_is_and_the_peer_id_survives() {
    let data = tempfile::tempdir().unwrap();
    let (child, line) = start(command(data.path()).arg("--json"));
    let http: SocketAddr = line["http"].as_str().unwrap().strip_prefix("http://").unwrap().parse().unwrap();
    assert_ne!(http.port(), 0);
    let addrs: Value = serde_json::from_str(&get(http, "/addrs").await.1).unwrap();
    assert_eq!((&addrs["peer"], &addrs["addrs"]), (&line["peer"], &line["addrs"]));
    terminate(child);
    let (child, again) = start(command(data.path()).arg("--json"));
    assert_eq!(again["peer"], line["peer"]);
    terminate(child);
}

#[test]
fn without_json_the_first_line_is_for_people() {
    let data = tempfile::tempdir().unwrap();
    let mut child = command(data.path()).spawn().unwrap();
    let line = first_line(&mut child);
    assert!(line.starts_with("Relay 12D3Koo") && line.contains(" at http://127.0.0.1:"), "{line}");
    terminate(child);
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let data = tempfile::tempdir().unwrap();
    let config = data.path().join("relay.toml");
    std::fs::write(&config, "http = \"127.0.0.3:0\"\nexternal_addresses = [\"/dns4/file.example/tcp/3\"]\n").unwrap();
    let in_file =
        |command: &mut Command| command.arg("--config").arg(&config).env_remove("MANYHANDS_RELAY_HTTP").spawn();
    let mut child = in_file(command(data.path()).arg("--json")).unwrap();
    let line = first_line(&mut child);
    assert!(line.contains("http://127.0.0.3:") && line.contains("/dns4/file.example/tcp/3/p2p/"), "{line}");
    terminate(child);
    let mut environment = command(data.path());
    environment.arg("--json").arg("--config").arg(&config).env("MANYHANDS_RELAY_HTTP", "127.0.0.2:0");
    let (child, line) = start(&mut environment);
    assert!(line["http"].as_str().unwrap().starts_with("http://127.0.0.2:"));
    terminate(child);
    let (child, line) = start(environment.args(["--http", "127.0.0.1:0"]));
    assert!(line["http"].as_str().unwrap().starts_with("http://127.0.0.1:"));
    terminate(child);
}

#[test]
fn a_relay_that_cannot_start_says_why_in_one_line() {
    let data = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let run = |command: &mut Command| command.output().unwrap();
    let http = format!("127.0.0.1:{port}");
    assert_cannot_start(run(command(data.path()).args(["--http", &http])), &[&http, "--http", "another port"]);
    let tcp = format!("/ip4/127.0.0.1/tcp/{port}");
    assert_cannot_start(run(command(data.path()).args(["--listen", &tcp])), &[&tcp, "--listen", "another port"]);
    let file = data.path().join("a file");
    std::fs::write(&file, "").unwrap();
    assert_cannot_start(run(&mut command(&file)), &["a file", "--data"]);
    let missing = data.path().join("missing.toml");
    assert_cannot_start(run(command(data.path()).arg("--config").arg(&missing)), &["missing.toml"]);
    std::fs::write(&file, "http = 5\nlisten = 3").unwrap();
    assert_cannot_start(run(command(data.path()).arg("--config").arg(&file)), &["a file", "http"]);
    assert_cannot_start(run(command(data.path()).args(["--log", "a=b=c"])), &["--log"]);
    let page = data.path().join("no page");
    assert_cannot_start(run(command(data.path()).arg("--web").arg(&page)), &["no page", "--web", "cargo xtask web"]);
}

#[test]
fn help_teaches() {
    let data = tempfile::tempdir().unwrap();
    let output = command(data.path()).arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for word in ["--http", "MANYHANDS_RELAY_HTTP", "--external-address", "Examples:", "Exit codes", "--config"] {
        assert!(text.contains(word), "{word} is missing in {text}");
    }
}
