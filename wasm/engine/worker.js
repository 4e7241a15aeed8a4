// The Worker around the engine module: fetches and keeps the model, then computes one unit after the other.
//
// in:  {type: "start", modelUrl, choice: "auto" | "cpu" | "gpu", memoryMib: number | null}
//      {type: "compute", id, unit, input, conditioning: Uint8Array | null}    {type: "cancel", id}    {type: "lose"}
// out: {type: "loading", what, done, total}    {type: "remark", text}
//      {type: "ready", numericClass, device, threads, models, remark, testError, tookMs}
//      {type: "result", id, output: Uint8Array | null, error: string | null, tookMs}
//      {type: "tick"}: still computing
//      {type: "failed", reason, fatal}: this Worker is of no more use; `fatal` if another try would fail the same way.

import init, { Loader, sha256 } from "./engine.js";

// Longest model card read; that of the largest model is far below.
const CARD_BYTES_MAX = 4 * 1024 * 1024;

// The memory of a wasm32 module ends at 4 GiB, and weights take twice their f16 files.
const MODEL_BYTES_MAX = 1024 * 1024 * 1024;

// What the engine needs beside the model: its code, and the tensors of one pass.
const ENGINE_MIB = 96;

// Progress is told at most this often.
const PROGRESS_MS = 100;

// While it computes, the page is told so this often: timers of hidden pages are slowed down, those of Workers are not.
const BEAT_MS = 500;

// A turn of the event loop, for the engine: messages that have come, such as `cancel`, are handled before it resolves.
const channel = new MessageChannel();
const turns = [];
channel.port1.onmessage = () => turns.shift()();
globalThis.turn = () => new Promise((resolve) => {
  turns.push(resolve);
  channel.port2.postMessage(null);
});

let panic = null;
globalThis.notePanic = (message) => {
  panic = message;
  console.error(message);
};

// A person can do something about these, or nobody can: trying again changes nothing.
class Fatal extends Error {}

let engine = null;
let failed = false;
let running = null;
let queue = Promise.resolve();
const cancelled = new Set();

self.onmessage = ({ data }) => {
  if (data.type === "start") start(data).catch((error) => fail(error));
  else if (data.type === "compute") queue = queue.then(() => compute(data));
  else if (data.type === "cancel") cancel(data.id);
  else if (data.type === "lose") engine?.lose();
};

async function start({ modelUrl, choice, memoryMib }) {
  const began = performance.now();
  const module = init();
  module.catch(() => {}); // Awaited below, after the model, which is fetched meanwhile.
  const store = await Store.open(modelUrl);
  const card = await store.card();
  const needed = Math.ceil((3 * card.total) / (1024 * 1024)) + ENGINE_MIB;
  if (memoryMib !== null && memoryMib !== undefined && needed > memoryMib) {
    throw new Fatal(`the model ${card.name} needs about ${needed} MiB and ${memoryMib} are lent; lend more memory`);
  }
  try {
    await module;
  } catch (error) {
    throw new Error(`the engine's code cannot be loaded: ${words(error)}`);
  }
  const files = await store.files(card);
  const loader = new Loader();
  for (const [path, bytes] of files) loader.add(path, bytes);
  files.length = 0;
  tell({ type: "loading", what: "testing the engine", done: card.total, total: card.total });
  const adapter = choice === "cpu" ? null : await adapterInfo();
  const lost = (reason) => fail(new Error(reason));
  try {
    engine = await loader.start(card.text, choice, adapter, lost);
  } catch (error) {
    throw new Fatal(words(error));
  }
  if (failed) return;
  tell({
    type: "ready", numericClass: engine.numericClass, device: engine.device, threads: 1, models: engine.models,
    remark: engine.remark ?? null, testError: engine.testError, tookMs: performance.now() - began,
  });
}

// What the browser says of its GPU, or null.
async function adapterInfo() {
  try {
    const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
    if (!adapter) return null;
    const { vendor, architecture, device, description } = adapter.info;
    const isFallbackAdapter = adapter.info.isFallbackAdapter ?? adapter.isFallbackAdapter ?? false;
    return { vendor, architecture, device, description, isFallbackAdapter };
  } catch {
    return null;
  }
}

async function compute({ id, unit, input, conditioning }) {
  const began = performance.now();
  const answer = (output, error) => {
    tell({ type: "result", id, output, error, tookMs: performance.now() - began }, output ? [output.buffer] : []);
  };
  if (cancelled.delete(id)) return answer(null, "the unit was cancelled");
  if (!engine || failed) return answer(null, "the engine is not ready");
  running = id;
  const beat = setInterval(() => tell({ type: "tick" }), BEAT_MS);
  try {
    answer(await engine.compute(unit, input, conditioning ?? undefined), null);
  } catch (error) {
    answer(null, words(error));
    // After a panic or without memory the module's state is not to be trusted.
    if (error instanceof WebAssembly.RuntimeError) fail(error);
  } finally {
    clearInterval(beat);
    running = null;
    cancelled.delete(id);
  }
}

function cancel(id) {
  if (running === id) engine?.cancel();
  else cancelled.add(id);
}

function fail(error) {
  if (failed) return;
  failed = true;
  tell({ type: "failed", reason: words(error), fatal: error instanceof Fatal });
}

function tell(message, transfer = []) {
  self.postMessage(message, transfer);
}

function words(error) {
  if (error instanceof WebAssembly.RuntimeError) {
    return `the engine stopped: ${panic ?? error.message}`;
  }
  return error instanceof Error ? error.message : String(error);
}

// The model's files: from the browser's cache if they are there and whole, else from the network, into the cache.
// Files are kept by their hash, and the card last, so that a card in the cache means that its files were all there.
class Store {
  constructor(modelUrl, cache) {
    this.modelUrl = modelUrl;
    this.cache = cache;
    this.done = 0;
    this.told = 0;
  }

  static async open(modelUrl) {
    let cache = null;
    try {
      cache = await caches.open(`manyhands model ${modelUrl}`);
    } catch {
      remark("This browser keeps nothing for this page (a private window, or an address without https); " +
        "the model is fetched again at every visit.");
    }
    return new Store(modelUrl, cache);
  }

  // The card from the network, else the cached one.
  async card() {
    const url = this.modelUrl + "model.json";
    let text, reason;
    try {
      const response = await ask(url, { cache: "no-cache" });
      text = new TextDecoder().decode(await body(response, url, CARD_BYTES_MAX));
      return read(text, url);
    } catch (error) {
      reason = words(error);
    }
    try {
      text = await (await this.cache?.match(url))?.text();
    } catch {
      this.cache = null;
    }
    if (!text) throw new Error(`the model cannot be fetched: ${reason}`);
    return read(text, url);
  }

  // All files as [path, bytes].
  async files(card) {
    const files = await Promise.all(card.files.map(async (file) => [file.path, await this.file(file, card.total)]));
    await this.finish(card);
    return files;
  }

  async file(file, total) {
    const kept = await this.kept(file);
    if (kept) {
      this.progress(kept.length, total);
      return kept;
    }
    const url = this.modelUrl + file.path;
    let found;
    for (const cache of ["default", "reload"]) {
      const bytes = await body(await ask(url, { cache }), url, file.bytes, (count) => this.progress(count, total));
      found = await hash(bytes);
      if (found === file.sha256) {
        await this.keep(file, bytes);
        return bytes;
      }
      this.done -= bytes.length;
    }
    throw new Error(`${url} is not the file that the model's card names: its SHA-256 is ${found}, not ${file.sha256}`);
  }

  // The cached bytes if they are what they should be; a damaged entry is deleted.
  async kept(file) {
    try {
      const response = await this.cache?.match(this.key(file));
      if (!response) return null;
      const bytes = new Uint8Array(await response.arrayBuffer());
      if (bytes.length === file.bytes && (await hash(bytes)) === file.sha256) return bytes;
      await this.cache.delete(this.key(file));
    } catch {
      // A cache that cannot be read is one that is not there.
    }
    return null;
  }

  async keep(file, bytes) {
    if (!this.cache) return;
    try {
      await this.cache.put(this.key(file), new Response(bytes));
    } catch (error) {
      if (!this.cache) return; // Another file has met the same.
      this.cache = null;
      remark(`The browser's storage is full or closed to this page (${words(error)}); ` +
        "the model is kept in memory only and fetched again at the next visit.");
    }
  }

  // Keeps the card, and forgets the files of former cards.
  async finish(card) {
    if (!this.cache) return;
    try {
      const wanted = new Set([this.modelUrl + "model.json", ...card.files.map((file) => this.key(file))]);
      await this.cache.put(this.modelUrl + "model.json", new Response(card.text));
      for (const request of await this.cache.keys()) {
        if (!wanted.has(request.url)) await this.cache.delete(request);
      }
    } catch {
      // Without its card the cache serves only visits with a network.
    }
  }

  key(file) {
    return `${this.modelUrl}sha256/${file.sha256}`;
  }

  progress(count, total) {
    this.done += count;
    const now = performance.now();
    if (now - this.told < PROGRESS_MS && this.done < total) return;
    this.told = now;
    tell({ type: "loading", what: "fetching the model", done: Math.min(this.done, total), total });
  }
}

// The card with its text and the sum of its files, once it is known to be sound.
function read(text, url) {
  let card;
  try {
    card = JSON.parse(text);
  } catch (error) {
    throw new Error(`${url} is not JSON: ${error.message}`);
  }
  const sound = (file) =>
    typeof file?.path === "string" && /^[\w-][\w./-]*$/.test(file.path) && !file.path.includes("..") &&
    Number.isSafeInteger(file.bytes) && file.bytes >= 0 && /^[0-9a-f]{64}$/.test(file.sha256);
  if (!Array.isArray(card?.files) || card.files.length === 0 || !card.files.every(sound)) {
    throw new Error(`${url} is not a model card`);
  }
  const total = card.files.reduce((sum, file) => sum + file.bytes, 0);
  if (total > MODEL_BYTES_MAX) throw new Fatal(`the model has ${total} bytes and a page can hold ${MODEL_BYTES_MAX}`);
  return { name: card.name, files: card.files, text, total };
}

async function ask(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    throw new Error(`${url} cannot be reached (${words(error)})`);
  }
  if (!response.ok) throw new Error(`${url}: the server says ${response.status} ${response.statusText}`);
  return response;
}

// The whole body, of at most `most` bytes.
async function body(response, url, most, progress = () => {}) {
  const chunks = [];
  let length = 0;
  const reader = response.body.getReader();
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (error) {
      throw new Error(`${url} broke off after ${length} bytes (${words(error)})`);
    }
    if (piece.done) break;
    length += piece.value.length;
    if (length > most) {
      reader.cancel();
      throw new Error(`${url} is longer than ${most} bytes`);
    }
    chunks.push(piece.value);
    progress(piece.value.length);
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}

// SHA-256 in hexadecimal; browsers hide theirs from pages without https.
async function hash(bytes) {
  if (!globalThis.crypto?.subtle) return sha256(bytes);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function remark(text) {
  tell({ type: "remark", text });
}
