//! Bytes that a browser has received for us and nobody has read, within a budget: browsers cannot be told to wait.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use js_sys::Uint8Array;

use crate::limits::BROWSER_BYTES_MAX;

/// What a message costs beside its bytes.
const MESSAGE_BYTES: usize = 64;

/// What the backlogs of one connection may hold together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Budget {
    used: Rc<Cell<usize>>,
}

/// The unread messages of one stream, read as bytes.
#[derive(Debug)]
pub(crate) struct Backlog {
    messages: RefCell<VecDeque<Vec<u8>>>,
    /// Bytes of the first message that were read.
    read: Cell<usize>,
    budget: Budget,
}

impl Budget {
    fn take(&self, bytes: usize) -> bool {
        let used = self.used.get() + bytes;
        let fits = used <= BROWSER_BYTES_MAX;
        if fits {
            self.used.set(used);
        }
        fits
    }

    fn give_back(&self, bytes: usize) {
        self.used.set(self.used.get() - bytes);
    }
}

impl Backlog {
    pub fn new(budget: Budget) -> Self {
        Self { messages: RefCell::default(), read: Cell::new(0), budget }
    }

    /// Takes a message; false when it does not fit.
    pub fn push(&self, message: &Uint8Array) -> bool {
        let fits = self.budget.take(message.length() as usize + MESSAGE_BYTES);
        if fits {
            self.messages.borrow_mut().push_back(message.to_vec());
        }
        fits
    }

    /// Reads into `buffer`, as much as there is; how much.
    pub fn read(&self, buffer: &mut [u8]) -> usize {
        let mut messages = self.messages.borrow_mut();
        let mut filled = 0;
        while let Some(message) = messages.front().filter(|_| filled < buffer.len()) {
            let rest = &message[self.read.get()..];
            let count = rest.len().min(buffer.len() - filled);
            buffer[filled..filled + count].copy_from_slice(&rest[..count]);
            filled += count;
            if count < rest.len() {
                self.read.set(self.read.get() + count);
            } else {
                self.budget.give_back(message.len() + MESSAGE_BYTES);
                self.read.set(0);
                messages.pop_front();
            }
        }
        filled
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        let unread = self.messages.borrow().iter().map(|message| message.len() + MESSAGE_BYTES).sum();
        self.budget.give_back(unread);
    }
}
