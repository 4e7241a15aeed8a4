//! The same participant inside a page.
