//! One tab: where it goes, what is typed and clicked in it, what its scripts answer, and how it looks.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::PATIENCE;
use super::pipe::{Pipe, TabClosed, attach_workers, network};
use super::witness::{Kind, Line, Witness};

/// Lines of testimony that an error shows.
const LINES_SHOWN: usize = 30;

/// Light or dark, as the person's system prefers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Dark letters on light ground.
    Light,
    /// Light letters on dark ground.
    Dark,
}

/// A tab; closed when dropped.
pub struct Tab {
    pipe: Arc<Pipe>,
    target: String,
    session: String,
    witness: Arc<Witness>,
}

impl Tab {
    /// Opens a tab in a visitor's context and goes to `url`.
    pub(super) fn open(pipe: Arc<Pipe>, context: &str, url: &str) -> Result<Self> {
        let parameters = json!({ "url": "about:blank", "browserContextId": context });
        let made = pipe.call(None, "Target.createTarget", parameters)?;
        let target = made["targetId"].as_str().context("a target has an id")?.to_owned();
        let parameters = json!({ "targetId": target, "flatten": true });
        let attached = pipe.call(None, "Target.attachToTarget", parameters)?;
        let session = attached["sessionId"].as_str().context("a session has an id")?.to_owned();
        let witness = Arc::new(Witness::default());
        pipe.listen(&session, Arc::clone(&witness));
        let tab = Self { pipe, target, session, witness };
        for domain in ["Page", "Runtime", "Log", "Audits", "Network"] {
            tab.call(&format!("{domain}.enable"), json!({}))?;
        }
        tab.call("Target.setAutoAttach", attach_workers())?;
        tab.go(url)?;
        Ok(tab)
    }

    /// Goes to another address; an error if nothing answers there.
    pub fn go(&self, url: &str) -> Result<()> {
        let gone = self.call("Page.navigate", json!({ "url": url }))?;
        match gone["errorText"].as_str().filter(|text| !text.is_empty()) {
            Some(reason) => bail!("going to {url}: {reason}"),
            None => Ok(()),
        }
    }

    /// Loads the page again, as F5 does.
    pub fn reload(&self) -> Result<()> {
        self.call("Page.reload", json!({})).map(drop)
    }

    /// Runs a script at the beginning of every page that is loaded from here on, before the page's own.
    pub fn before_every_page(&self, script: &str) -> Result<()> {
        self.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": script })).map(drop)
    }

    /// The value of an expression; a promise is waited for. An exception is an error with its text.
    pub fn eval(&self, expression: &str) -> Result<Value> {
        self.eval_within(expression, PATIENCE)
    }

    /// Waits until an expression, which may be a promise, is true, across reloads; returns its value.
    pub fn wait(&self, expression: &str) -> Result<Value> {
        self.wait_within(expression, PATIENCE)
    }

    /// The same with another patience.
    pub fn wait_within(&self, expression: &str, patience: Duration) -> Result<Value> {
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            // The page looks by itself, so that nothing is asked over and over from here.
            let looking = format!(
                "new Promise((resolve) => {{
                    const end = performance.now() + {};
                    const look = async () => {{
                        let value = false;
                        try {{ value = await ({expression}); }} catch (error) {{ value = false; }}
                        if (value || performance.now() > end) resolve(value); else setTimeout(look, 20);
                    }};
                    look();
                }})",
                left.as_millis()
            );
            match self.eval_within(&looking, left + Duration::from_secs(5)) {
                Ok(value) if !matches!(value, Value::Null | Value::Bool(false)) => return Ok(value),
                Err(error) if error.downcast_ref::<TabClosed>().is_some() => return Err(error),
                // Not yet true; or the page was left while it looked.
                Ok(_) | Err(_) if Instant::now() < end => {}
                Ok(_) => bail!("not true within {} s: {expression}\n{}", patience.as_secs(), self.last_lines()),
                Err(error) => {
                    return Err(error.context(format!("waiting for {expression}\n{}", self.last_lines())));
                }
            }
        }
    }

    /// Clicks in the middle of the first element that a CSS selector finds, once there is one.
    pub fn click(&self, selector: &str) -> Result<()> {
        let place = self.wait(&format!(
            "(() => {{
                const element = document.querySelector({selector:?});
                element.scrollIntoView({{ block: 'center', behavior: 'instant' }});
                const box = element.getBoundingClientRect();
                return box.width > 0 && !element.disabled && [box.x + box.width / 2, box.y + box.height / 2];
            }})()"
        ))?;
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event)?;
        }
        Ok(())
    }

    /// Replaces what stands in the first field that a CSS selector finds, as if it were typed.
    pub fn fill(&self, selector: &str, text: &str) -> Result<()> {
        self.wait(&format!(
            "(() => {{ const field = document.querySelector({selector:?}); field.focus(); field.select?.(); return true; }})()"
        ))?;
        if text.is_empty() {
            return self.press("Delete", Modifiers::default());
        }
        self.call("Input.insertText", json!({ "text": text })).map(drop)
    }

    /// Presses and releases a key, named as in a KeyboardEvent.
    pub fn press(&self, key: &str, modifiers: Modifiers) -> Result<()> {
        let code = match key {
            "Enter" => 13,
            "Escape" => 27,
            " " => 32,
            "Tab" => 9,
            "Delete" => 46,
            _ => 0,
        };
        let bits = [(modifiers.alt, 1), (modifiers.control, 2), (modifiers.meta, 4), (modifiers.shift, 8)];
        let bits: u32 = bits.into_iter().filter(|(is_down, _)| *is_down).map(|(_, bit)| bit).sum();
        for kind in ["rawKeyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": key, "windowsVirtualKeyCode": code, "modifiers": bits });
            self.call("Input.dispatchKeyEvent", event)?;
        }
        Ok(())
    }

    /// Shows the page at so many CSS pixels, `scale` device pixels each.
    pub fn viewport(&self, width: u32, height: u32, scale: f64) -> Result<()> {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", metrics).map(drop)
    }

    /// Sets what the person prefers: light or dark, and whether things should hold still.
    pub fn prefer(&self, scheme: Scheme, is_still: bool) -> Result<()> {
        let scheme = match scheme {
            Scheme::Light => "light",
            Scheme::Dark => "dark",
        };
        let motion = if is_still { "reduce" } else { "no-preference" };
        let features = json!([
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": motion },
        ]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features })).map(drop)
    }

    /// Cuts this tab and its workers off from the network, or connects them again.
    pub fn offline(&self, is_offline: bool) -> Result<()> {
        self.witness.cut_off(is_offline);
        for session in self.pipe.sessions_of(&self.witness) {
            let cut = self.pipe.call(Some(&session), "Network.emulateNetworkConditions", network(is_offline));
            // A worker may have ended meanwhile; the tab itself has not.
            ensure!(session != self.session || cut.is_ok(), "cutting the tab off: {cut:?}");
        }
        Ok(())
    }

    /// Freezes the page as browsers do with tabs that were hidden for long, or thaws it.
    pub fn freeze(&self, is_frozen: bool) -> Result<()> {
        let state = if is_frozen { "frozen" } else { "active" };
        self.call("Page.setWebLifecycleState", json!({ "state": state })).map(drop)
    }

    /// A picture of what is seen, or of the whole page however long, as a PNG file.
    pub fn screenshot(&self, file: &Path, is_whole: bool) -> Result<()> {
        let parameters = json!({ "format": "png", "captureBeyondViewport": is_whole });
        let shot = self.call("Page.captureScreenshot", parameters)?;
        let text = shot["data"].as_str().context("a screenshot has data")?;
        let bytes = data_encoding::BASE64.decode(text.as_bytes()).context("reading a screenshot")?;
        std::fs::write(file, bytes).with_context(|| format!("writing {}", file.display()))
    }

    /// Bytes of the page's JavaScript objects after a collection of garbage; wasm memory and workers not included.
    pub fn heap_bytes(&self) -> Result<u64> {
        self.call("HeapProfiler.collectGarbage", json!({}))?;
        let usage = self.call("Runtime.getHeapUsage", json!({}))?;
        Ok(usage["usedSize"].as_f64().context("a heap has a size")? as u64)
    }

    /// Any other command of the DevTools protocol, in this tab.
    pub fn call(&self, method: &str, parameters: Value) -> Result<Value> {
        self.pipe.call(Some(&self.session), method, parameters)
    }

    /// Everything that the tab and its workers said, threw or violated so far.
    pub fn testimony(&self) -> Vec<Line> {
        self.witness.testimony()
    }

    /// What was thrown and caught by nobody, crashes included.
    pub fn uncaught(&self) -> Vec<Line> {
        self.lines(|kind| matches!(kind, Kind::Threw | Kind::Crashed))
    }

    /// What was done against the content security policy.
    pub fn violations(&self) -> Vec<Line> {
        self.lines(|kind| *kind == Kind::Violated)
    }

    /// Closes the tab at once, as a person does; the page is not asked.
    pub fn close(self) {
        drop(self);
    }

    /// The same, with more or less patience.
    pub fn eval_within(&self, expression: &str, patience: Duration) -> Result<Value> {
        let parameters =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true });
        let answer = self.pipe.call_within(Some(&self.session), "Runtime.evaluate", parameters, patience)?;
        match answer.get("exceptionDetails") {
            Some(details) => {
                let exception = &details["exception"];
                let text = exception["description"].as_str().or(exception["value"].as_str());
                bail!("{}", text.or(details["text"].as_str()).unwrap_or("the script failed without a reason"))
            }
            None => Ok(answer["result"]["value"].clone()),
        }
    }

    fn lines(&self, is_wanted: impl Fn(&Kind) -> bool) -> Vec<Line> {
        self.testimony().into_iter().filter(|line| is_wanted(&line.kind)).collect()
    }

    fn last_lines(&self) -> String {
        let lines = self.testimony();
        let shown = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
        shown.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }
}

/// Keys held down while another is pressed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Modifiers {
    /// Alt, or Option.
    pub alt: bool,
    /// Control.
    pub control: bool,
    /// Command, or the Windows key.
    pub meta: bool,
    /// Shift.
    pub shift: bool,
}

impl Drop for Tab {
    fn drop(&mut self) {
        // A tab that is closed already, or whose browser is, is what we want.
        let _ = self.pipe.call(None, "Target.closeTarget", json!({ "targetId": self.target }));
    }
}
