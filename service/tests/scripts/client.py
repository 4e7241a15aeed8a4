"""The runpod SDK's client does everything it can with a room, and reports what it saw as one line of JSON."""

import json
import os
import sys

import runpod

runpod.api_key = os.environ["RUNPOD_API_KEY"]
endpoint = runpod.Endpoint(os.environ["ROOM"])
report = {}

job = endpoint.run({"type": "demo_fast", "prompt": "the sea", "seed": 7})
report["output"] = job.output(timeout=60)
report["status"] = job.status()
report["run_sync"] = endpoint.run_sync({"input": {"task": "echo", "value": [1, "ä"]}}, timeout=60)

# A whole request, with what the SDK passes on beside the input.
job = endpoint.run({"input": {"task": "items", "count": 3}, "policy": {"ttl": 600000, "executionTimeout": 60000}})
report["stream"] = list(job.stream())

job = endpoint.run({"task": "fail"})
job.output(timeout=60)
report["failed"] = job.status()

report["health"] = endpoint.health()

# Whatever comes next waits: the worker has been told to take nothing more.
endpoint.run_sync({"task": "rest"}, timeout=60)
job = endpoint.run({"task": "echo", "value": 1})
report["cancel"] = job.cancel()
report["cancelled"] = job.status()
for value in (2, 3):
    endpoint.run({"task": "echo", "value": value})
report["purge"] = endpoint.purge_queue()

stranger = runpod.Endpoint(os.environ["ROOM"], api_key="rpa_WRONG")
try:
    stranger.run({"task": "echo"})
    report["unauthorised"] = False
except RuntimeError:
    report["unauthorised"] = True

print("REPORT", json.dumps(report), flush=True)
sys.exit(0)
