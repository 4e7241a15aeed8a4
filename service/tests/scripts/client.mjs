// The runpod-sdk of npm does everything it can with a room, and reports what it saw as one line of JSON.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// The package lies in the target folder, not beside this script.
const require = createRequire(process.env.SDK_FOLDER + "/index.js");
const { default: sdk } = await import(pathToFileURL(require.resolve("runpod-sdk")).href);

const endpoint = sdk(process.env.RUNPOD_API_KEY, { baseUrl: process.env.RUNPOD_ENDPOINT_BASE_URL }).endpoint(process.env.ROOM);
const report = {};

const started = await endpoint.run({ input: { type: "demo_fast", prompt: "the sea", seed: 7 } });
report.started = started.status;
let status = await endpoint.status(started.id);
while (!status.completed) status = await endpoint.statusSync(started.id, 10_000);
report.output = status.output;
report.succeeded = status.succeeded;

const done = await endpoint.runSync({ input: { task: "echo", value: [1, "ä"] } });
report.run_sync = [done.status, done.succeeded, done.output];

const items = await endpoint.run({ input: { task: "items", count: 3 } });
report.stream = [];
for await (const item of endpoint.stream(items.id)) report.stream.push(item.output);

report.health = await endpoint.health();

await endpoint.runSync({ input: { task: "rest" } });
const waiting = await endpoint.run({ input: { task: "echo", value: 1 } });
report.cancel = await endpoint.cancel(waiting.id);
report.cancelled = (await endpoint.status(waiting.id)).status;
await endpoint.run({ input: { task: "echo", value: 2 } });
report.purge = await endpoint.purgeQueue();

console.log("REPORT", JSON.stringify(report));
