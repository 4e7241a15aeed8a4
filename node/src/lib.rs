//! A participant in a room: joins net, coordinator, sampler and an engine.
