//! node entry point.
fn main() {}
