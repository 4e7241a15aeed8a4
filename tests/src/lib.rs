//! Everything together: real processes, faults, tidy.
