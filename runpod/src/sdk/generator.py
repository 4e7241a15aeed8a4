"""The runpod SDK's worker loop with a handler that yields."""

import json

import runpod


def handler(job):
    for item in range(job["input"]["count"]):
        yield {"item": item}
    if job["input"].get("breaks"):
        raise ValueError("it broke")


print("REPORT", json.dumps("ready"), flush=True)
runpod.serverless.start({"handler": handler, "return_aggregate_stream": True})
