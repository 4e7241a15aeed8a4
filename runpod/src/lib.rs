//! RunPod's serverless contract: client, worker inputs and outputs, and an emulator for tests.
