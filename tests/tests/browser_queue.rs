//! High quality in a real browser: through the relay's queue to the cloud's emulator or a helper, called off, over reloads.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::RoomLink;
use serde_json::{Value, json};
use tests::page::Page;
use tests::programs::{Process, node, program, start};
use tests::site::{Site, browser};
use xtask::browser::{Browser, Tab};

/// What the emulator asks for, and nobody else has.
const KEY: &str = "canary-of-the-emulator";

/// A picture, however slow the machine is just then.
const PATIENCE: Duration = Duration::from_secs(120);

/// An endpoint of the cloud in a process of its own, whose jobs run this long.
fn emulator(execution_ms: u32) -> (Process, String) {
    let execution_ms = execution_ms.to_string();
    let options = ["--json", "--key", KEY, "--cold-start-ms", "500", "--execution-ms", &execution_ms];
    let mut emulator = start(program("runpod-emulator").args(options));
    let said = emulator.json().unwrap();
    (emulator, said["base"].as_str().unwrap().to_owned())
}

/// Settings of a relay that pays this endpoint, one job at a time, and gives everybody else no time.
fn settings(base: &str, folder: &Path) -> String {
    let key = folder.join("key");
    std::fs::write(&key, KEY).unwrap();
    format!(
        r#"
[queue]
rooms_may_spend = true
overflow_after_s = 0.0
await_workers_s = 0.0

[queue.budgets]
total_usd = 5.0
day_usd = 5.0
user_day_usd = 5.0
room_day_usd = 5.0

[[queue.endpoints]]
name = "emulator"
url = {base:?}
key_file = {key:?}
queues = ["demo"]
price_per_second_usd = 0.0002
execution_max_s = 120
in_flight_max = 1
"#
    )
}

/// A tab whose form asks for high quality of this type.
fn open(site: &Site, browser: &Browser, link: &str, kind: &str) -> Page {
    assert!(link.starts_with(&site.url));
    let page = Page::open(browser, link, "engine=cpu&lend=0&name=ada");
    choose(&page, kind);
    page
}

fn choose(page: &Page, kind: &str) {
    page.tab.wait("!document.querySelector('[data-testid=quality]').hidden").unwrap();
    page.tab.click("[data-testid=quality-high]").unwrap();
    page.tab.wait("!document.getElementById('kind-box').hidden").unwrap();
    let chosen = page.tab.eval(&format!(
        "(() => {{ const kind = document.querySelector('[data-testid=kind]'); kind.value = {kind:?}; \
         kind.dispatchEvent(new Event('input', {{ bubbles: true }})); return kind.value; }})()"
    ));
    assert_eq!(chosen.unwrap(), kind, "the relay offers it");
}

/// Asks for so many pictures.
fn paint(page: &Page, count: u32) {
    let fields = [("prompt", "a red circle".to_owned()), ("seed", "7".to_owned()), ("count", count.to_string())];
    for (name, text) in fields {
        page.tab.fill(&format!("[data-testid={name}]"), &text).unwrap();
    }
    page.tab.click("[data-testid=paint]").unwrap();
}

/// Waits for a job that is shown so: the selector's attributes after `[data-testid=job]`; its attributes and text.
fn wait_for_job(page: &Page, attributes: &str) -> Value {
    let shown = format!(
        "(() => {{ const job = document.querySelector('[data-testid=job]{attributes}'); \
         return job && {{ ...job.dataset, text: job.textContent }}; }})()"
    );
    page.tab.wait_within(&shown, PATIENCE).unwrap_or_else(|error| panic!("{attributes}: {error:#}; {}", jobs(page)))
}

/// What the page says of its jobs, for whoever reads why a test failed.
fn jobs(page: &Page) -> Value {
    page.tab.eval("manyhands.state().queue").unwrap_or_default()
}

#[test]
fn high_quality_waits_is_painted_by_the_cloud_and_shown_with_source_and_cost() {
    let Some(browser) = browser(&[]) else { return };
    let (_emulator, base) = emulator(3_000);
    let folder = tempfile::tempdir().unwrap();
    let site = Site::with_settings(&settings(&base, folder.path()));
    let page = open(&site, &browser, &site.room(), "demo_high");
    let told = page.tab.eval("document.getElementById('quality-note').textContent").unwrap();
    eprintln!("choice: {told}");
    let told = told.as_str().unwrap();
    assert!(told.contains("The relay sees them") && told.contains("in the cloud that the operator rents"), "{told}");
    paint(&page, 2);
    // One at a time: the second waits, and is told its place and time.
    let waits = wait_for_job(&page, "[data-status=queued][data-position=\"1\"][data-eta]");
    eprintln!("waits: {}", waits["text"]);
    assert!(waits["eta"].as_str().unwrap().parse::<f64>().unwrap() > 0.0);
    assert!(waits["text"].as_str().unwrap().contains("Place 1 in the queue · about"));
    let painted = wait_for_job(&page, "[data-status=processing][data-source=cloud]");
    eprintln!("painted: {}", painted["text"]);
    assert_eq!(painted["worker"], "runpod");
    page.tab.wait("document.querySelector('[data-testid=queue-line]').textContent.includes('being painted')").unwrap();

    let shown = wait_for_job(&page, "[data-stage=shown][data-source=cloud]");
    eprintln!("shown: {}", shown["text"]);
    assert!(shown["cost"].as_str().unwrap().parse::<f64>().unwrap() > 0.0);
    let text = shown["text"].as_str().unwrap();
    assert!(text.contains("by the cloud") && text.contains('$') && text.contains("How it was routed"), "{text}");
    page.tab.wait_within("document.querySelectorAll('[data-stage=shown]').length === 2", PATIENCE).unwrap();
    let pixels = page.pixels();
    assert_eq!(pixels.len(), 128 * 128 * 3, "as large as the type says");
    let downloaded = page.download(folder.path());
    assert_eq!(pixels_of(&std::fs::read(&downloaded).unwrap()), pixels, "{}", downloaded.display());
    let source = page.tab.eval("document.querySelector('[data-testid=picture]').dataset.source").unwrap();
    let credits = page.tab.eval("document.querySelector('[data-testid=credits]').textContent").unwrap();
    eprintln!("credits: {credits}");
    assert_eq!(source, "cloud");
    assert!(credits.as_str().unwrap().contains("by the cloud (runpod), $"));
    let recent = page.tab.eval("document.querySelectorAll('[data-testid=recent-picture]').length").unwrap();
    assert_eq!(recent, 2, "they are kept like others");
    assert!(!page.tab.eval("document.documentElement.innerHTML").unwrap().as_str().unwrap().contains(KEY));
    page.assert_clean();
}

#[test]
fn jobs_can_be_called_off_while_they_wait_and_while_they_are_painted() {
    let Some(browser) = browser(&[]) else { return };
    let (_emulator, base) = emulator(60_000);
    let folder = tempfile::tempdir().unwrap();
    let site = Site::with_settings(&settings(&base, folder.path()));
    let page = open(&site, &browser, &site.room(), "demo_fast");
    paint(&page, 2);
    wait_for_job(&page, "[data-status=processing]");
    let waits = wait_for_job(&page, "[data-status=queued]");
    let selector = format!("[data-testid=job][data-job=\"{}\"]", waits["job"].as_str().unwrap());
    page.tab.click(&format!("{selector} [data-testid=job-cancel]")).unwrap();
    page.tab.wait(&format!("document.querySelector({selector:?}).dataset.stage === 'cancelled'")).unwrap();
    // The other one by the form's button.
    page.tab.click("[data-testid=cancel]").unwrap();
    page.tab.wait("document.querySelectorAll('[data-testid=job][data-stage=cancelled]').length === 2").unwrap();
    let picture = page.tab.eval("document.querySelector('[data-testid=picture]').hidden").unwrap();
    assert_eq!(picture, true);
    page.tab.wait("document.querySelector('[data-testid=queue-line]').textContent.includes('empty')").unwrap();
    page.tab.click("[data-testid=job-dismiss]").unwrap();
    page.tab.wait("document.querySelectorAll('[data-testid=job]').length === 1").unwrap();
    page.assert_clean();
}

#[test]
fn a_reload_attaches_to_the_job_again_also_after_its_end_and_a_new_queue_says_that_it_knows_nothing() {
    let Some(browser) = browser(&[]) else { return };
    let (_emulator, base) = emulator(6_000);
    let folder = tempfile::tempdir().unwrap();
    let settings_text = settings(&base, folder.path());
    let site = Site::with_settings(&settings_text);
    let page = open(&site, &browser, &site.room(), "demo_high");
    paint(&page, 1);
    let before = wait_for_job(&page, "[data-status=processing]");
    page.tab.reload().unwrap();
    let after = wait_for_job(&page, "[data-status=processing]");
    assert_eq!(after["job"], before["job"], "the same job");
    let shown = wait_for_job(&page, "[data-stage=shown]");
    assert_eq!((&shown["job"], &shown["source"]), (&before["job"], &"cloud".into()));
    let first = page.wait_for_picture();

    page.tab.reload().unwrap();
    wait_for_job(&page, "[data-stage=shown]");
    assert_eq!(page.wait_for_picture(), first, "the same picture");

    // While a job is painted, the relay is set up anew at the same address.
    paint(&page, 1);
    wait_for_job(&page, "[data-status=processing]");
    let _site = site.replace(&settings_text);
    let lost = wait_for_job(&page, "[data-stage=lost]");
    assert!(lost["text"].as_str().unwrap().contains("does not know this job"), "{lost}");
    page.tab.click("[data-stage=lost] [data-testid=job-again]").unwrap();
    wait_for_job(&page, "[data-status=processing]");
    page.assert_clean();
}

#[test]
fn a_room_that_may_not_spend_is_told_so_and_a_helper_of_it_paints() {
    let Some(browser) = browser(&[]) else { return };
    let (_emulator, base) = emulator(1_000);
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&base, folder.path()).replace("rooms_may_spend = true", "rooms_may_spend = false");
    let site = Site::with_settings(&settings);
    let link = site.room();
    let page = open(&site, &browser, &link, "demo_fast");
    let note = "document.getElementById('quality-note').textContent";
    page.tab.wait("document.querySelector('[data-testid=quality]').dataset.cloud === 'barred'").unwrap();
    let told = page.tab.eval(note).unwrap();
    eprintln!("choice: {told}");
    let told = told.as_str().unwrap();
    assert!(told.contains("The relay sees them") && told.contains("does not let this room spend"), "{told}");
    assert!(told.contains("it waits until a helper comes"), "{told}");
    paint(&page, 1);
    let waits = wait_for_job(&page, "[data-status=queued]");
    page.tab.wait("document.querySelector('[data-part=route]').textContent.includes('no right to spend')").unwrap();
    eprintln!("waits: {}", waits["text"]);
    assert!(waits["text"].as_str().unwrap().contains("nobody is there for it now"), "{waits}");

    let helper = Helper::of(&browser, &site, &link);
    let work = helper.take();
    let painted = wait_for_job(&page, "[data-status=processing][data-source=peer]");
    assert_eq!((&painted["job"], &work["id"]), (&waits["job"], &waits["job"]));
    page.tab.wait(&format!("!{note}.includes('it waits until a helper comes')")).unwrap();
    let picture = helper.deliver(&work, folder.path());
    let shown = wait_for_job(&page, "[data-stage=shown]");
    eprintln!("shown: {}", shown["text"]);
    assert_eq!((&shown["source"], &shown["worker"]), (&"peer".into(), &"worker".into()));
    assert!(shown["text"].as_str().unwrap().contains("by a helper of the room (worker) · free of charge"));
    page.wait_for_picture();
    assert_eq!(page.pixels(), picture, "what the helper painted");
    let meter = meter(&base);
    assert_eq!(meter["runs"], json!({}), "nothing was asked of the cloud: {meter}");
    page.assert_clean();
}

/// A helper of a room with nothing but its link, this checkout's program, and the queue's HTTP contract.
struct Helper {
    tab: Tab,
    room: String,
    token: String,
}

impl Helper {
    fn of(browser: &Browser, site: &Site, link: &str) -> Self {
        let key = RoomLink::parse(link).unwrap().secret.queue_key();
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let proof = key.prove(site.url.trim_start_matches("http://"), u64::try_from(now_ms).unwrap());
        let tab = browser.tab(&format!("{}/addrs", site.url)).unwrap();
        let mut helper = Self { tab, room: key.room_name(), token: String::new() };
        let granted = helper.post(&format!("/api/token/{}", helper.room), &serde_json::to_value(proof).unwrap());
        helper.token = granted["token"].as_str().expect("a member gets a token").to_owned();
        helper
    }

    /// The job that waits for somebody with the demo model.
    fn take(&self) -> Value {
        let body = json!({ "worker": "easel", "models": ["demo"], "wait_s": 20 });
        let work = self.post(&format!("/api/join/{}", self.room), &body);
        assert!(work["id"].is_string(), "{work}");
        work
    }

    /// Paints what a job asks for and delivers it; its pixels.
    fn deliver(&self, work: &Value, folder: &Path) -> Vec<u8> {
        let (order, file) = (&work["input"], folder.join("painted.png"));
        let mut paint = node();
        paint.args(["paint", order["prompt"].as_str().unwrap(), "--threads", "1", "--out"]).arg(&file);
        paint.args(["--size", &format!("{}x{}", order["width"], order["height"])]);
        for (flag, name) in [("--steps", "steps"), ("--guidance", "guidance"), ("--seed", "seed")] {
            paint.args([flag, &order[name].to_string()]);
        }
        let output = paint.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let bytes = std::fs::read(&file).unwrap();
        let data = self.tab.eval(&format!("btoa(String.fromCharCode(...{bytes:?}))")).unwrap();
        let output =
            json!({ "images": [{ "filename": "0.png", "type": "base64", "data": data }], "seed": order["seed"] });
        let body = json!({ "fence": work["lease"]["fence"], "output": output });
        let answer = self.post(&format!("/api/jobs/{}/deliver", work["id"].as_str().unwrap()), &body);
        assert_eq!(answer["status"], "completed", "{answer}");
        pixels_of(&bytes)
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let asked = json!({
            "method": "POST",
            "headers": { "content-type": "application/json", "authorization": format!("Bearer {}", self.token) },
            "body": body.to_string(),
        });
        self.tab.eval(&format!("fetch({path:?}, {asked}).then((answer) => answer.json())")).unwrap()
    }
}

/// RGB rows of a PNG.
fn pixels_of(png: &[u8]) -> Vec<u8> {
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let read = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((read.color_type, read.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
    pixels
}

/// What the emulator has done and charged.
fn meter(base: &str) -> Value {
    let address = base.trim_start_matches("http://").split_once('/').unwrap().0;
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /_meter HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}
