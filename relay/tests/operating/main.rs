//! docs/operators.md from its first command to its last, as a new operator would follow it: with a Postgres server, an S3 store and
//! an emulated endpoint of RunPod.
#![allow(missing_docs, clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::time::Duration;

use runpod::emulator::{Emulator, Settings};
use runpod::sdk::{Installed, Script, found, install_python};
use store::testing::{Postgres, Sync};
use tokio::task::spawn_blocking;

/// The secrets, which must be in no log and no output.
const S3_SECRET: &str = "canary-secret-of-the-store";
const RUNPOD_KEY: &str = "canary-key-of-the-endpoint";

static S3: LazyLock<Installed> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("s3-python");
    install_python(&folder, &["moto[s3]==5.2.5", "flask", "flask-cors"], "moto.server, flask_cors")
});

#[tokio::test(flavor = "multi_thread")]
async fn what_the_operators_page_says_works_from_the_first_command_to_the_last() {
    for program in ["bash", "curl", "jq", "psql"] {
        if find(program).is_none() {
            return println!("SKIPPED operating because {program} is missing; cargo xtask test installs what it can");
        }
    }
    let Some(python) = found(&S3, "the S3 store") else { return };
    let postgres = match Postgres::start(Sync::On).await {
        Ok(postgres) => postgres,
        Err(reason) => return println!("SKIPPED operating because {reason}"),
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/operating/s3.py");
    let mut s3 = Script::start(python, &script, &[]);
    let store = format!("http://127.0.0.1:{}", s3.report().await["port"]);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    assert!(http.put(format!("{store}/pictures")).send().await.unwrap().status().is_success());
    let emulator = endpoint().await;

    let queue = format!("manyhands_queue_{:08x}", rand::random::<u32>());
    let (_, server) = postgres.url().split_once('@').unwrap();
    let (host, rest) = server.split_once('/').unwrap();
    let options = rest.split_once('?').map(|(_, options)| format!("?{options}")).unwrap_or_default();
    let place = format!("@{host}/manyhands_queue{options}");
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let endpoint = format!("url = \"{}\"", emulator.base());
    let text = commands(&[
        ("@127.0.0.1/manyhands_queue", &place),
        ("manyhands_queue", &queue),
        ("127.0.0.1:8080", &format!("127.0.0.1:{port}")),
        ("https://ACCOUNT.r2.cloudflarestorage.com", &store),
        ("id = \"ENDPOINT_ID\"", &endpoint),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let admin = postgres.url().to_owned();
    let output = {
        let folder = folder.path().to_owned();
        spawn_blocking(move || run(&text, &folder, &admin)).await.unwrap()
    };
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    let (said, log) = (String::from_utf8_lossy(&output.stdout).into_owned(), read("relay.log"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}\n{log}");

    for word in ["\"completed\"", "\"source\": \"cloud\"", " charge ", "gpu", "\"cancelled\"", "sdxl_image_high"] {
        assert!(said.contains(word), "{word} is missing in {said}");
    }
    assert!(std::fs::read(folder.path().join("sea.png")).unwrap().starts_with(b"\x89PNG"));
    assert!(read("events.txt").contains("completed") && read("metrics.txt").contains("manyhands_relay_connections"));
    let listed = http.get(format!("{store}/pictures?list-type=2")).send().await.unwrap().text().await.unwrap();
    assert_eq!(listed.matches("<Key>").count(), 1, "{listed}");
    assert_eq!(emulator.meter().runs_in_all(), 1);
    for secret in [S3_SECRET, RUNPOD_KEY, "PASSWORD", "the sea by day"] {
        assert!(!log.contains(secret) && !read("metrics.txt").contains(secret), "{secret} is told in {log}");
    }
}

/// The commands of the page, one after the other, with what stands there for an operator's own values replaced by the test's.
fn commands(values: &[(&str, &str)]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = std::fs::read_to_string(root.join("docs/operators.md")).unwrap();
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    let mut text = blocks.collect::<String>();
    for (value, own) in values {
        assert!(text.contains(value), "the page does not say {value} any more");
        text = text.replace(value, own);
    }
    let prelude = include_str!("prelude.sh");
    format!("{prelude}{text}\nstop\n")
}

fn run(text: &str, folder: &Path, admin: &str) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_manyhands-relay"));
    let mut path = vec![program.parent().unwrap().to_owned()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
    let mut bash = Command::new("bash");
    bash.current_dir(folder).args(["-c", text]).env("PATH", std::env::join_paths(path).unwrap());
    bash.env("MANYHANDS_RELAY_LISTEN", "/ip4/127.0.0.1/tcp/0").env("MANYHANDS_RELAY_WEB", "none");
    bash.env("ADMIN", admin).env("S3_SECRET", S3_SECRET).env("RUNPOD_KEY", RUNPOD_KEY);
    // Loopback is not to be asked for through a proxy.
    bash.env("NO_PROXY", "127.0.0.1").output().unwrap()
}

async fn endpoint() -> Emulator {
    let quick = Duration::from_millis(300);
    let settings = Settings { key: RUNPOD_KEY.to_owned(), cold_start: quick, execution: quick, ..Settings::default() };
    Emulator::start(settings).await.unwrap()
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}
