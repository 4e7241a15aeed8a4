"""The SDK's client does everything it can, and reports what it saw as one line of JSON."""

import json
import os

import runpod

runpod.api_key = os.environ["RUNPOD_API_KEY"]
endpoint = runpod.Endpoint("emu")
report = {}


def order(seed, **more):
    return {"input": {"task": "txt2img", "width": 32, "height": 16, "seed": seed, **more}}


job = endpoint.run(order(7))
report["output"] = job.output(timeout=60)
report["status"] = job.status()
report["run_sync"] = endpoint.run_sync(order(8), timeout=60)

job = endpoint.run(order(9, _stream=["one", {"two": 2}]))
report["stream"] = list(job.stream())

report["health"] = endpoint.health()

job = endpoint.run(order(10))
report["cancel"] = job.cancel()["status"]
report["cancelled"] = job.status()

# The one worker is kept busy by the first, so that the others wait.
busy = endpoint.run(order(11))
while busy.status() != "IN_PROGRESS":
    pass
waiting = [endpoint.run(order(seed)) for seed in (12, 13)]
report["purge"] = endpoint.purge_queue()

stranger = runpod.Endpoint("emu", api_key="rpa_WRONG")
try:
    stranger.run(order(14))
    report["unauthorised"] = False
except RuntimeError:
    report["unauthorised"] = True

print("REPORT", json.dumps(report), flush=True)
