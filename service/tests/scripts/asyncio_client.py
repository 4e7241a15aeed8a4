"""The runpod SDK's client for asyncio asks, waits, streams and cancels."""

import asyncio
import json
import os

import aiohttp
import runpod
from runpod.endpoint.asyncio.asyncio_runner import Endpoint


async def main():
    runpod.api_key = os.environ["RUNPOD_API_KEY"]
    report = {}
    async with aiohttp.ClientSession() as session:
        endpoint = Endpoint(os.environ["ROOM"], session)
        job = await endpoint.run({"task": "echo", "value": "ä"})
        report["output"] = await job.output(timeout=60)
        job = await endpoint.run({"task": "items", "count": 2})
        report["stream"] = [item async for item in job.stream()]
        report["health"] = sorted(await endpoint.health())
        job = await endpoint.run({"task": "never"})
        report["cancel"] = (await job.cancel())["status"]
    print("REPORT", json.dumps(report), flush=True)


asyncio.run(main())
