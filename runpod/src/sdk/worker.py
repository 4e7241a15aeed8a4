"""The runpod SDK's worker loop with a handler of a few tasks."""

import asyncio
import json
import time

import runpod


def report(text):
    print("REPORT", json.dumps(text), flush=True)


async def handler(job):
    task = job["input"].get("task")
    if task == "echo":
        return {"echo": job["input"]["value"]}
    if task == "raise":
        raise ValueError("it broke")
    if task == "nothing":
        return {}
    if task == "block":
        # Nothing else of this worker runs meanwhile, but its pings.
        time.sleep(job["input"]["seconds"])
        return "rested"
    if task == "progress":
        runpod.serverless.progress_update(job, {"progress": 500, "step": 4, "of": 8})
        report("half")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            report("stopped")
            raise
    if task == "picture":
        return {"images": [{"filename": "0.png", "type": "base64", "data": job["input"]["png"]}], "seed": 7}
    if task == "txt2img":
        return {"images": [{"filename": "0.png", "type": "base64", "data": PNG}], "seed": job["input"]["seed"]}
    return {"error": f"Unknown task: {task}"}


PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

report("ready")
runpod.serverless.start({"handler": handler})
