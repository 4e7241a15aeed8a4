//! relay entry point.
fn main() {}
