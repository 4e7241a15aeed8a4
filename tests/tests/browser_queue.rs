//! High quality in a real browser: through the relay's queue to the cloud's emulator or a helper, called off, over reloads.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::RoomLink;
use serde_json::Value;
use tests::page::Page;
use tests::programs::{Process, node, program, start};
use tests::site::{Site, browser};

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
fn open(site: &Site, browser: &xtask::browser::Browser, link: &str, kind: &str) -> Page {
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
    assert!(text.contains("by the cloud") && text.contains('$') && text.contains("Why there"), "{text}");
    page.tab.wait_within("document.querySelectorAll('[data-stage=shown]').length === 2", PATIENCE).unwrap();
    assert_eq!(page.pixels().len(), 128 * 128 * 3, "as large as the type says");
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
fn a_helper_of_the_room_takes_the_job_and_is_named_as_its_source() {
    let Some(browser) = browser(&[]) else { return };
    let site = Site::with_settings("[queue]\n");
    let link = site.room();
    let page = open(&site, &browser, &link, "demo_fast");
    let key = RoomLink::parse(&link).unwrap().secret.queue_key();
    let token = token(&site, &page, &link);
    let queue = format!("{}/v2/{}", site.url, key.room_name());
    let mut helper = node();
    helper.args(["serve", "--queue", &queue, "--model", "demo", "--threads", "1", "--progress", "json"]);
    let mut helper = start(helper.env("MANYHANDS_TOKEN", token));
    helper.wait_for("serving").unwrap();
    paint(&page, 1);
    let shown = wait_for_job(&page, "[data-stage=shown]");
    eprintln!("shown: {}", shown["text"]);
    assert_eq!((&shown["source"], &shown["worker"]), (&"peer".into(), &"worker".into()));
    assert!(shown["text"].as_str().unwrap().contains("by a helper of the room (worker) · free of charge"));
    assert_eq!(page.pixels().len(), 128 * 128 * 3);
    page.assert_clean();
}

/// A token of the room, as any of its members gets it.
fn token(site: &Site, page: &Page, link: &str) -> String {
    let key = RoomLink::parse(link).unwrap().secret.queue_key();
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let proof = key.prove(site.url.trim_start_matches("http://"), u64::try_from(now_ms).unwrap());
    let asked = format!(
        "fetch({:?}, {{ method: 'POST', headers: {{ 'content-type': 'application/json' }}, body: {:?} }})\
         .then((answer) => answer.json()).then((granted) => granted.token)",
        format!("{}/api/token/{}", site.url, key.room_name()),
        serde_json::to_string(&proof).unwrap(),
    );
    page.tab.eval(&asked).unwrap().as_str().expect("a member gets a token").to_owned()
}
