"""The openai package asks a relay for pictures."""

import base64
import json
import os

import openai

client = openai.OpenAI(base_url=os.environ["RELAY"] + "/v1", api_key=os.environ["RUNPOD_API_KEY"], max_retries=0)
report = {}

made = client.images.generate(model="demo_fast", prompt="the sea", n=2, size="128x128", response_format="b64_json")
report["pictures"] = [base64.b64encode(base64.b64decode(image.b64_json)).decode() for image in made.data]
report["created"] = made.created > 1_700_000_000
made = client.images.generate(model="gpt-image-1", prompt="the sea", quality="low")
report["url"] = made.data[0].url
report["models"] = [model.id for model in client.models.list()]

for name, call in {
    "size": lambda: client.images.generate(model="demo_fast", prompt="a", size="4096x4096"),
    "model": lambda: client.images.generate(model="no_such", prompt="a"),
    "key": lambda: client.with_options(api_key="sk-wrong").images.generate(prompt="a"),
}.items():
    try:
        call()
        report[name] = None
    except openai.APIStatusError as error:
        report[name] = [type(error).__name__, error.status_code, error.code, error.param]

print("REPORT", json.dumps(report), flush=True)
