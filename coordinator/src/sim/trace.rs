//! What happened, line by line: hashed whole, and the end of it kept for reading.

use std::collections::VecDeque;
use std::fmt::{Arguments, Write};

use protocol::Instant;
use sha2::{Digest, Sha256};

use crate::sim::clock::micros;

/// Lines that are kept for whoever reads a failure.
const LINES_KEPT: usize = 60;

/// The trace of a run.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    hasher: Sha256,
    line: String,
    kept: VecDeque<String>,
    keeps: bool,
}

impl Trace {
    /// An empty trace; only one that `keeps` its last lines can show them.
    pub fn new(keeps: bool) -> Self {
        Self { keeps, ..Self::default() }
    }

    /// Adds a line.
    pub fn note(&mut self, now: Instant, what: Arguments<'_>) {
        let micros = micros(now);
        self.line.clear();
        writeln!(self.line, "{}.{:06} {what}", micros / 1_000_000, micros % 1_000_000)
            .expect("writing to a string cannot fail");
        self.hasher.update(self.line.as_bytes());
        if self.keeps {
            if self.kept.len() >= LINES_KEPT {
                self.kept.pop_front();
            }
            self.kept.push_back(self.line.trim_end().to_owned());
        }
    }

    /// Does not keep the last line, if it was kept; it stays in the hash.
    pub fn drop_last(&mut self) {
        self.kept.pop_back();
    }

    /// SHA-256 over all lines.
    pub fn hash(&self) -> [u8; 32] {
        self.hasher.clone().finalize().into()
    }

    /// The last lines, if they are kept.
    pub fn tail(&self) -> impl Iterator<Item = &str> {
        self.kept.iter().map(String::as_str)
    }
}

/// A few digits that differ where bodies differ.
pub fn digest(body: &[u8]) -> u32 {
    let fold = |state: u64, word: &[u8]| {
        let mut bytes = [0; 8];
        bytes[..word.len()].copy_from_slice(word);
        (state ^ u64::from_le_bytes(bytes)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
    };
    let state = body.chunks(8).fold(body.len() as u64, fold);
    (state ^ (state >> 32)) as u32
}
