//! Reads a component's JSON configuration, naming file and key in every complaint.

use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::files::Files;
use crate::weights::LoadError;

/// Largest count believed in a configuration: no width, length or vocabulary of a known model reaches a million.
const COUNT_MAX: u64 = 1_000_000;

/// One configuration file. An absent or null key takes the default given where it is asked for.
pub struct Config {
    path: PathBuf,
    values: Map<String, Value>,
}

impl Config {
    /// Reads the file `name`.
    pub fn open(files: &Files, name: &str) -> Result<Self, LoadError> {
        Ok(Self { path: files.path(name), values: files.read_json(name)? })
    }

    /// The value of `key`, unless absent or null.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    /// A whole number from 1 to a million.
    pub fn count(&self, key: &str, default: Option<usize>) -> Result<usize, LoadError> {
        match (self.value(key), default) {
            (Some(value), _) => to_count(value).ok_or_else(|| self.bad(key, "a whole number from 1 to a million")),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.bad(key, "given")),
        }
    }

    /// One count for each of `blocks` blocks: a list of that length, or one number for all.
    pub fn counts(&self, key: &str, blocks: usize, default: Option<usize>) -> Result<Vec<usize>, LoadError> {
        let Some(Value::Array(list)) = self.value(key) else {
            return Ok(vec![self.count(key, default)?; blocks]);
        };
        let counts: Option<Vec<usize>> = list.iter().map(to_count).collect();
        counts.filter(|counts| counts.len() == blocks).ok_or_else(|| self.bad(key, "a count, or one for each block"))
    }

    /// A list of counts, one to eight of them.
    pub fn list(&self, key: &str) -> Result<Vec<usize>, LoadError> {
        let counts: Option<Vec<usize>> =
            self.value(key).and_then(Value::as_array).map_or(Some(vec![]), |list| list.iter().map(to_count).collect());
        counts
            .filter(|counts| (1..=8).contains(&counts.len()))
            .ok_or_else(|| self.bad(key, "a list of one to eight counts"))
    }

    /// A finite number.
    pub fn number(&self, key: &str, default: f64) -> Result<f64, LoadError> {
        self.value(key).map_or(Some(default), Value::as_f64).ok_or_else(|| self.bad(key, "a number"))
    }

    /// True or false.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool, LoadError> {
        self.value(key).map_or(Some(default), Value::as_bool).ok_or_else(|| self.bad(key, "true or false"))
    }

    /// One flag for each of `blocks` blocks: a list of that length, or one for all.
    pub fn flags(&self, key: &str, blocks: usize) -> Result<Vec<bool>, LoadError> {
        let Some(Value::Array(list)) = self.value(key) else {
            return Ok(vec![self.flag(key, false)?; blocks]);
        };
        let flags: Option<Vec<bool>> = list.iter().map(Value::as_bool).collect();
        flags.filter(|flags| flags.len() == blocks).ok_or_else(|| self.bad(key, "a flag, or one for each block"))
    }

    /// A text.
    pub fn text(&self, key: &str, default: &'static str) -> Result<&str, LoadError> {
        self.value(key).map_or(Some(default), Value::as_str).ok_or_else(|| self.bad(key, "text"))
    }

    /// A list of texts, `count` of them.
    pub fn texts(&self, key: &str, count: usize) -> Result<Vec<&str>, LoadError> {
        let list = self.value(key).and_then(Value::as_array);
        let texts: Option<Vec<&str>> = list.and_then(|list| list.iter().map(Value::as_str).collect());
        texts.filter(|texts| texts.len() == count).ok_or_else(|| self.bad(key, "one text for each block"))
    }

    /// Refuses the file by the name of the key, unless `key` is absent, null or one of `supported`.
    pub fn only(&self, key: &str, supported: &[Value]) -> Result<(), LoadError> {
        let Some(value) = self.value(key) else { return Ok(()) };
        // Numbers are compared by value: Python writes 1 and 1.0 alike.
        let same = |other: &Value| other == value || (value.is_number() && other.as_f64() == value.as_f64());
        if supported.iter().any(same) {
            return Ok(());
        }
        let supported: Vec<String> = supported.iter().map(Value::to_string).collect();
        let supported = if supported.is_empty() { "null".to_owned() } else { supported.join(" or ") };
        Err(LoadError::unsupported(&self.path, format!("{key} is {value}, and only {supported} is supported")))
    }

    /// A complaint that this file is not sound.
    pub fn malformed(&self, reason: impl ToString) -> LoadError {
        LoadError::malformed(&self.path, reason)
    }

    /// A complaint about this file.
    pub fn unsupported(&self, reason: impl ToString) -> LoadError {
        LoadError::unsupported(&self.path, reason)
    }

    fn bad(&self, key: &str, needed: &str) -> LoadError {
        LoadError::malformed(&self.path, format!("{key} must be {needed}"))
    }
}

fn to_count(value: &Value) -> Option<usize> {
    value.as_u64().filter(|count| (1..=COUNT_MAX).contains(count)).map(|count| count as usize)
}
