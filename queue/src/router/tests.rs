//! x tests purpose.
