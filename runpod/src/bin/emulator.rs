//! `runpod-emulator`: an endpoint that behaves as RunPod's does, or misbehaves as told.

fn main() {}
