//! WGSL sources, each with a CPU twin of the same name.
