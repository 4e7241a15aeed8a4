"""The SDK's client asks for what the SDK's worker does."""

import json
import os

import runpod

runpod.api_key = os.environ["RUNPOD_API_KEY"]
output = runpod.Endpoint("emu").run_sync({"input": {"task": "echo", "value": "hello"}}, timeout=60)
print("REPORT", json.dumps(output), flush=True)
