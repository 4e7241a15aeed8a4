//! What a tab and its workers say, throw, and do against their content policy.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

/// Lines kept of one tab; the first ones tell most about what went wrong.
const LINES_MAX: usize = 10_000;

/// How a line came to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Said on the console, with its level: `log`, `warning`, `error`.
    Said(String),
    /// Thrown and caught by nobody, or a rejected promise that nobody handled.
    Threw,
    /// Against the content security policy.
    Violated,
    /// Noted by the browser itself, with its level: a request that failed, a header that it does not understand.
    Noted(String),
    /// The tab crashed.
    Crashed,
}

/// One line of testimony.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// How it came to be.
    pub kind: Kind,
    /// What was said.
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, text } = self;
        match kind {
            Kind::Said(level) | Kind::Noted(level) => write!(formatter, "[{level}] {text}"),
            Kind::Threw => write!(formatter, "[uncaught] {text}"),
            Kind::Violated => write!(formatter, "[policy] {text}"),
            Kind::Crashed => write!(formatter, "[crashed] {text}"),
        }
    }
}

/// Hears the events of a tab and its workers.
#[derive(Debug, Default)]
pub struct Witness {
    lines: Mutex<Vec<Line>>,
    is_offline: AtomicBool,
}

impl Witness {
    /// Takes one event; those that say nothing are passed over.
    pub fn handle(&self, method: &str, parameters: &Value) {
        let line = match method {
            "Runtime.consoleAPICalled" => said(parameters),
            "Runtime.exceptionThrown" => threw(&parameters["exceptionDetails"]),
            "Log.entryAdded" => noted(&parameters["entry"]),
            "Audits.issueAdded" => match violated(&parameters["issue"]) {
                Some(line) => line,
                None => return,
            },
            "Inspector.targetCrashed" => Line { kind: Kind::Crashed, text: "the tab's process ended".into() },
            _ => return,
        };
        let mut lines = self.lines();
        if lines.len() < LINES_MAX {
            lines.push(line);
        }
    }

    /// Remembers for workers that are yet to start whether the tab is cut off.
    pub fn cut_off(&self, is_offline: bool) {
        self.is_offline.store(is_offline, Ordering::Relaxed);
    }

    /// Whether the tab is cut off.
    pub fn is_offline(&self) -> bool {
        self.is_offline.load(Ordering::Relaxed)
    }

    /// Everything so far.
    pub fn testimony(&self) -> Vec<Line> {
        self.lines().clone()
    }

    fn lines(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn said(call: &Value) -> Line {
    let word = |argument: &Value| match &argument["value"] {
        Value::String(text) => text.clone(),
        Value::Null => {
            let described = argument["description"].as_str().or(argument["unserializableValue"].as_str());
            described.or(argument["type"].as_str()).unwrap_or_default().to_owned()
        }
        other => other.to_string(),
    };
    let words: Vec<String> = call["args"].as_array().into_iter().flatten().map(word).collect();
    let level = call["type"].as_str().unwrap_or("log").to_owned();
    Line { kind: Kind::Said(level), text: words.join(" ") }
}

fn threw(details: &Value) -> Line {
    let exception = &details["exception"];
    let text = exception["description"].as_str().or(exception["value"].as_str()).or(details["text"].as_str());
    let place = details["url"].as_str().unwrap_or_default();
    let text = format!("{} ({place}:{})", text.unwrap_or("something"), details["lineNumber"]);
    Line { kind: Kind::Threw, text }
}

fn noted(entry: &Value) -> Line {
    let word = |name: &str| entry[name].as_str().unwrap_or_default();
    let text = format!("{}: {} {}", word("source"), word("text"), word("url"));
    Line { kind: Kind::Noted(word("level").to_owned()), text }
}

fn violated(issue: &Value) -> Option<Line> {
    let details = &issue["details"]["contentSecurityPolicyIssueDetails"];
    let directive = details["violatedDirective"].as_str()?;
    let blocked = details["blockedURL"].as_str().unwrap_or("something inline");
    let kind = details["contentSecurityPolicyViolationType"].as_str().unwrap_or_default();
    Some(Line { kind: Kind::Violated, text: format!("{directive}: {blocked} {kind}") })
}
