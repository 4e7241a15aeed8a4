//! Every command that the README and docs/ show is run here, as it stands there.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::programs::{finish, interrupt, new_room, node, relay, relay_command, start, worker, xtask};
use tests::tidy::{read, root};

/// The lines of all ```sh blocks of a file, continuation lines joined.
fn commands_in(path: &Path) -> Vec<String> {
    let mut commands = Vec::new();
    let mut inside = false;
    for line in read(path).replace("\\\n", " ").lines() {
        match line.trim() {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside && !line.is_empty() && !line.starts_with('#') => {
                commands.push(line.split_whitespace().collect::<Vec<_>>().join(" "));
            }
            _ => {}
        }
    }
    commands
}

fn documents() -> Vec<PathBuf> {
    let docs = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    // The operators' page is one script from its first line to its last: relay/tests/operating follows it.
    let is_meant =
        |path: &PathBuf| path.extension().is_some_and(|ending| ending == "md") && !path.ends_with("operators.md");
    let mut all: Vec<_> = docs.filter(is_meant).collect();
    all.extend([root().join("README.md"), root().join("models/demo/README.md")]);
    all.sort();
    all
}

/// Runs one documented command in `folder`, in a room that is open.
fn run(line: &str, folder: &Path, link: &str) {
    let words: Vec<&str> = line
        .split('\'')
        .enumerate()
        .flat_map(|(index, part)| {
            if index % 2 == 1 {
                vec![part]
            } else {
                part.split('"')
                    .enumerate()
                    .flat_map(
                        |(index, part)| {
                            if index % 2 == 1 { vec![part] } else { part.split_whitespace().collect() }
                        },
                    )
                    .collect()
            }
        })
        .collect();
    let token = if line.contains("TOKEN") { operator(folder) } else { String::new() };
    let address = link.strip_prefix("http://").and_then(|rest| rest.split_once('/')).unwrap().0;
    let here = &format!("http://{address}");
    let filled = |word: &str| word.replace("LINK", link).replace("TOKEN=TOKEN", &format!("TOKEN={token}"));
    let filled = |word: &str| filled(word).replace("Bearer TOKEN", &format!("Bearer {token}"));
    let words: Vec<String> = words.iter().map(|word| filled(word)).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        // A worker of the relay that is open here.
        [token, "manyhands", "serve", "--queue", queue, rest @ ..] => {
            let (name, token) = token.split_once('=').expect("the token is given by the environment");
            let queue = queue.replace("http://127.0.0.1:8080", here);
            let mut command = node();
            command.env(name, token).args(["serve", "--queue", &queue, "--progress", "json"]).args(rest);
            let mut worker = start(&mut command);
            worker.wait_for("serving").unwrap();
            interrupt(&worker);
            assert_eq!(finish(worker).0, Some(0), "{line}");
        }
        // What is asked of the queue by command, on the data of the relay that is open here.
        ["manyhands-relay", "token" | "ledger" | "job-types", ..] => {
            let output = queue_command(folder).args(&words[1..]).output().unwrap();
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        }
        ["curl", "--header", header, "--json", json, url] => {
            let url = url.replace("http://127.0.0.1:8080", here);
            let (name, value) = header.split_once(": ").expect("a header has a name");
            let request = ureq::post(url).header(name, value).content_type("application/json");
            assert_eq!(request.send(*json).unwrap().status(), 202, "{line}");
        }
        // This test is part of it.
        ["cargo", "xtask", "test"] => {}
        ["cargo", "xtask", "bench", rest @ ..] => {
            // The figures of the page need its small build, which takes minutes.
            let rest = if rest.contains(&"--browser") { &["engine"][..] } else { rest };
            // The whole bench takes minutes; its shortest part shows that the command works.
            let output = xtask().args(["bench", rest.first().unwrap_or(&"engine")]).output().unwrap();
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        }
        // As built for the tests and over a few seeds: thousands take minutes.
        ["cargo", "run", "--release", rest @ ..] => {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.current_dir(root()).args(["run", "--quiet"]);
            let is_number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
            cargo.args(rest.iter().map(|word| if is_number(word) { "20" } else { word }));
            let output = cargo.output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            // Twenty seeds do not find every planted bug.
            let is_told = rest.contains(&"--mutants") && said.contains("are found within 20 seeds");
            assert!(output.status.success() || is_told, "{line}: {}", String::from_utf8_lossy(&output.stderr));
        }
        ["cargo", "xtask", "demo"] => open_demo(),
        // The page as `cargo xtask test` has just built it, into a folder of its own.
        ["cargo", "xtask", "web", rest @ ..] => {
            let dev = if rest.contains(&"--dev") { &[][..] } else { &["--dev"] };
            let output = xtask().current_dir(folder).arg("web").args(rest).args(dev).output().unwrap();
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        }
        ["cargo", "xtask", "demo", rest @ ..] => {
            let output = xtask().current_dir(folder).arg("demo").args(rest).output().unwrap();
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        }
        // They run until Ctrl-C: started, seen to work, stopped.
        ["manyhands", "join", rest @ ..] => {
            let mut join = start(node().arg("join").args(rest).args(["--progress", "json"]));
            join.wait_for("lending").unwrap();
            interrupt(&join);
            assert_eq!(finish(join).0, Some(0), "{line}");
        }
        ["manyhands-relay", "--help"] => {
            assert!(relay_command().arg("--help").output().unwrap().status.success());
        }
        ["manyhands-relay", rest @ ..] => {
            let mut relay = start(relay_command().current_dir(folder).args(rest).arg("--json"));
            relay.json().unwrap();
            interrupt(&relay);
            assert_eq!(finish(relay).0, Some(0), "{line}");
        }
        ["manyhands", rest @ ..] => {
            let mut node = node();
            // Pictures land in the folder, models and fixtures are found from the checkout.
            let rest = rest.iter().map(|word| {
                let inside = ["tests/", "models/"].iter().any(|start| word.starts_with(start));
                if inside { root().join(word).display().to_string() } else { (*word).to_owned() }
            });
            let output =
                node.current_dir(folder).env("MANYHANDS_MODELS", root().join("models")).args(rest).output().unwrap();
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        }
        ["curl", .., url] => {
            let url = url.strip_prefix("http://").expect("documents use plain http for the local relay");
            let (_, path) = url.split_once('/').expect("the address has a path");
            let answer = get(address, path);
            assert!(answer.starts_with("HTTP/1.1 200"), "{line}: {answer}");
        }
        other => panic!("documents show a command that no test runs: {other:?}"),
    }
}

/// A command about the queue of the relay that is open here.
fn queue_command(folder: &Path) -> Command {
    let mut command = relay_command();
    command.env("MANYHANDS_RELAY_DATA", folder.join("relay"));
    command
}

/// An operator's token of that relay.
fn operator(folder: &Path) -> String {
    let output = queue_command(folder).args(["token", "--user", "me", "--can", "operate"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn get(address: &str, path: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// `cargo xtask demo` says how to paint; what it says works; Ctrl-C closes it.
fn open_demo() {
    let mut demo = start(xtask().arg("demo"));
    let said: Vec<_> = std::iter::from_fn(|| demo.line().filter(|line| line != "Ctrl-C closes the room.")).collect();
    let shown = said.iter().find(|line| line.contains(" paint ")).expect("the demo says how to paint").trim();
    let folder = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    shell.current_dir(folder.path()).env("MANYHANDS_MODELS", root().join("models"));
    let output = shell.args(["-c", shown]).output().unwrap();
    assert!(output.status.success(), "{shown}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(folder.path().join("a.png").exists());
    interrupt(&demo);
    assert_eq!(finish(demo).0, Some(0));
}

#[test]
fn every_documented_command_works() {
    let folder = tempfile::tempdir().unwrap();
    let (_relay, url) = relay(&folder.path().join("relay"));
    let link = new_room(&url);
    let _worker = worker(&link, &[]);
    let mut ran = 0;
    for document in documents() {
        for line in commands_in(&document) {
            println!("{}: {line}", document.display());
            run(&line, folder.path(), &link);
            ran += 1;
        }
    }
    assert!(ran >= 10, "only {ran} commands are documented; is the parser still right?");
}
