//! Echo and throughput of every path between a page and others, measured by `room.probe` in a real tab.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::browser::{Browser, Tab};
use crate::build::Programs;
use crate::processes::{LOOPBACK, Process, new_room, relay_with_page, worker};

/// A message of the echo: a unit's tensor of the demo model.
const ECHO_BYTES: usize = 16 * 1024;

/// Echoes, of which the middle one counts.
const ECHOES: usize = 200;

/// A body of the throughput.
const BODY_BYTES: usize = 1024 * 1024;

/// Bodies one after the other.
const BODIES: usize = 32;

/// Who is at the other end of a path.
enum Other {
    /// A native member with these arguments of `manyhands join`.
    Native(&'static [&'static str]),
    /// Another tab.
    Tab,
}

/// A path, how it is had, and what the page calls it.
struct Way {
    name: &'static str,
    other: Other,
    relayed_only: bool,
    path: &'static str,
}

const WAYS: [Way; 5] = [
    Way { name: "webtransport", other: Other::Native(&LOOPBACK), relayed_only: false, path: "direct (webtransport)" },
    Way {
        name: "websocket",
        other: Other::Native(&["--listen", "/ip4/127.0.0.1/tcp/0/ws"]),
        relayed_only: false,
        path: "direct (websocket)",
    },
    Way { name: "relayed", other: Other::Native(&LOOPBACK), relayed_only: true, path: "relayed" },
    Way {
        name: "webrtc-native",
        // Pages have no QUIC.
        other: Other::Native(&["--listen", "/ip4/127.0.0.1/udp/0/quic-v1"]),
        relayed_only: false,
        path: "direct (webrtc)",
    },
    Way { name: "webrtc-tabs", other: Other::Tab, relayed_only: false, path: "direct (webrtc)" },
];

/// Measures all of them, each in a room of its own.
pub fn measure(programs: &Programs, browser: &Browser, page: &Path) -> Result<()> {
    let data = tempfile::tempdir()?;
    let (_relay, url) = relay_with_page(programs, data.path(), page)?;
    for way in &WAYS {
        one(programs, browser, &url, way).with_context(|| format!("the path {}", way.name))?;
    }
    Ok(())
}

/// The other end, kept until the path is measured.
enum Member {
    Native { _process: Process },
    Tab { _tab: Tab },
}

fn one(programs: &Programs, browser: &Browser, url: &str, way: &Way) -> Result<()> {
    let Way { name, path, .. } = way;
    let link = new_room(programs, url)?;
    let _member = match way.other {
        Other::Native(arguments) => {
            let arguments = [&["--fake-ms", "0"], arguments].concat();
            Member::Native { _process: worker(programs, &link, "other", &arguments)?.0 }
        }
        Other::Tab => Member::Tab { _tab: enter(browser, url, &link, false)? },
    };
    let tab = enter(browser, url, &link, way.relayed_only)?;
    let peer = tab.wait(&format!("room.peers.find((peer) => !peer.isMe && peer.path === {path:?})?.id"))?;
    let probe = |kind: &str, bytes: usize, count: usize| -> Result<Value> {
        let what = json!({ "kind": kind, "bytes": bytes, "count": count });
        let measured = tab.eval(&format!("room.probe({peer}, {what})"))?;
        ensure!(measured["path"] == *path, "measured {} instead", measured["path"]);
        Ok(measured)
    };
    let mb_per_s = |measured: &Value| -> Result<f64> {
        let (bytes, ms) = (measured["bytes"].as_f64(), measured["tookMs"].as_f64());
        Ok(bytes.context("bytes are a number")? / 1e3 / ms.context("time is a number")?)
    };
    // Once for the compilers and windows on the way, then for the record.
    probe("echo", ECHO_BYTES, ECHOES)?;
    let echo = probe("echo", ECHO_BYTES, ECHOES)?;
    println!("path {name} echo_16KiB_p50_ms {:.2}", echo["echoP50Ms"].as_f64().context("an echo takes time")?);
    for (kind, figure) in [("upload", "up_1MiB_MB_per_s"), ("download", "down_1MiB_MB_per_s")] {
        probe(kind, BODY_BYTES, BODIES)?;
        println!("path {name} {figure} {:.1}", mb_per_s(&probe(kind, BODY_BYTES, BODIES)?)?);
    }
    Ok(())
}

/// A tab whose script has joined the room as `room`.
fn enter(browser: &Browser, url: &str, link: &str, relayed_only: bool) -> Result<Tab> {
    let tab = browser.tab(&format!("{url}/?lend=0"))?;
    tab.wait("window.manyhands?.state()")?;
    tab.eval(&format!(
        "import('./manyhands.js').then(async ({{ Manyhands }}) => \
         {{ globalThis.room = await Manyhands.join({link:?}, {{ relayedOnly: {relayed_only} }}); }})"
    ))?;
    tab.wait("room.status.state === 'connected'")?;
    Ok(tab)
}
