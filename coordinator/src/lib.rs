//! Plans, leases and their failures, as state machines that do no IO.
