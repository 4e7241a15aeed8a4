"""The SDK's worker loop with a handler of a few tasks."""

import asyncio
import json

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
    if task == "progress":
        runpod.serverless.progress_update(job, {"permille": 500})
        report("half")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            report("stopped")
            raise
    return {"error": f"Unknown task: {task}"}


report("ready")
runpod.serverless.start({"handler": handler})
