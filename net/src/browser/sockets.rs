//! The open sockets of a page, to be closed at once when it goes away.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use send_wrapper::SendWrapper;

type Close = Rc<dyn Fn()>;

/// Every open socket of one participant. A page has one thread, and so has everything in here.
#[derive(Clone)]
pub(crate) struct Sockets {
    inner: SendWrapper<Rc<Inner>>,
}

#[derive(Default)]
struct Inner {
    next: Cell<u64>,
    open: RefCell<BTreeMap<u64, Close>>,
}

/// A socket's place among the open ones, left when this is dropped.
pub(crate) struct Socket {
    inner: Rc<Inner>,
    id: u64,
}

impl Sockets {
    /// Remembers how to close a socket.
    pub fn insert(&self, close: impl Fn() + 'static) -> Socket {
        let id = self.inner.next.replace(self.inner.next.get() + 1);
        self.inner.open.borrow_mut().insert(id, Rc::new(close));
        Socket { inner: Rc::clone(&self.inner), id }
    }

    /// Closes all of them.
    pub fn close_all(&self) {
        let open: Vec<Close> = self.inner.open.borrow().values().cloned().collect();
        for close in open {
            close();
        }
    }
}

impl Default for Sockets {
    fn default() -> Self {
        Self { inner: SendWrapper::new(Rc::default()) }
    }
}

impl fmt::Debug for Sockets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Sockets").field("open", &self.inner.open.borrow().len()).finish()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.inner.open.borrow_mut().remove(&self.id);
    }
}
