// Manyhands for scripts: join a room, lend this device, paint pictures. Types and documentation are in manyhands.d.ts.
//
//   import { Manyhands } from "https://relay.example/manyhands.js";
//   const room = await Manyhands.join(link, { name: "ada", lend: true });
//   const picture = await room.paint({ prompt: "mountains at sunset with a lake" });
//   image.src = URL.createObjectURL(picture.png);

import init, { joinSession, newRoom } from "./page/page.js";

// News of a painting that wait for whoever iterates; beyond them the oldest are forgotten.
const NEWS_MAX = 64;

let started = null;

// Loads the module once; a failure, such as a lost network, may be tried again.
function start() {
  started ??= init().catch((error) => {
    started = null;
    throw new Error(`Manyhands cannot be loaded: ${error?.message ?? error}`);
  });
  return started;
}

export class Manyhands {
  static async join(link = null, options = {}) {
    await start();
    const { signal, ...rest } = options ?? {};
    signal?.throwIfAborted();
    const room = new Room(BUILD);
    await room[OPEN](link, rest);
    if (signal?.aborted) {
      room.leave();
      throw signal.reason;
    }
    return room;
  }

  static async newRoom(relay = new URL("./", import.meta.url).href) {
    await start();
    return newRoom(String(relay));
  }
}

// Keys to what is not for scripts.
const BUILD = Symbol("build");
const OPEN = Symbol("open");
const BEGIN = Symbol("begin");
const HEAR = Symbol("hear");

export class Room extends EventTarget {
  #session = null;
  #peers = [];
  #status = { state: "connecting", text: "" };
  #engine = { state: "off", text: "", progress: null };
  #newest = null; // The painting asked for last.
  #active = null; // The painting that the session works on; each ends with exactly one of its news.
  #line = Promise.resolve();
  #left = false;
  #farewell = (event) => {
    if (!event.persisted) this.#session.farewell();
  };

  constructor(key) {
    super();
    if (key !== BUILD) throw new TypeError("A room is entered with Manyhands.join(link).");
  }

  async [OPEN](link, options) {
    let settle;
    const settled = new Promise((resolve) => (settle = resolve));
    const hear = (text, bytes) => {
      const news = JSON.parse(text);
      this.#hear(news, bytes);
      if (news.type === "status" && news.state !== "connecting") settle();
    };
    const base = String(options.base ?? new URL("./", import.meta.url).href);
    const known = JSON.stringify({ ...options, base, iceServers: servers(options.iceServers) });
    this.#session = await joinSession(link === null ? undefined : String(link), known, hear);
    globalThis.addEventListener("pagehide", this.#farewell);
    await settled;
  }

  get link() {
    return this.#session.link() ?? null;
  }

  get id() {
    return this.#session.room() ?? null;
  }

  get me() {
    return this.#session.me();
  }

  get peers() {
    return this.#peers;
  }

  get status() {
    return this.#status;
  }

  get engine() {
    return this.#engine;
  }

  paint(recipe, { signal } = {}) {
    if (this.#left) throw new Error("This room has been left; join it again to paint.");
    const wish = { Paint: { ...recipe, seed: seed(recipe?.seed) } };
    const painting = new Painting(BUILD, signal, () => this.#wish("Cancel"));
    // One picture at a time: the one before is given up, and this one begins when that is done.
    this.#newest?.abort();
    this.#newest = painting;
    this.#line = this.#line.then(() => {
      if (painting.done) return undefined;
      this.#active = painting;
      return painting[BEGIN](() => this.#wish(wish));
    });
    return painting;
  }

  lend(lend = true) {
    this.#wish({ Lend: Boolean(lend) });
  }

  pause(paused = true) {
    this.#wish({ Pause: Boolean(paused) });
  }

  rename(name) {
    this.#wish({ Rename: String(name) });
  }

  pledge(memoryMib) {
    this.#wish({ Pledge: Number(memoryMib) });
  }

  async probe(peer, { kind = "echo", bytes = 16 * 1024, count = 100 } = {}) {
    if (this.#left) throw new Error("This room has been left; join it again to measure.");
    return JSON.parse(await this.#session.probe(String(peer), JSON.stringify({ kind, bytes, count })));
  }

  leave() {
    if (this.#left) return;
    this.#newest?.abort();
    this.#wish("Leave");
    this.#left = true;
    this.#active?.[HEAR]({ type: "cancelled" }, null);
    globalThis.removeEventListener("pagehide", this.#farewell);
  }

  // Makes the engine lose its GPU, as a driver's crash would; for tests.
  loseEngine() {
    this.#session.loseEngine();
  }

  #wish(wish) {
    if (!this.#left) this.#session.wish(JSON.stringify(wish));
  }

  #hear(news, bytes) {
    const { type, ...detail } = news;
    if (type === "status") this.#status = detail;
    else if (type === "engine") this.#engine = detail;
    else if (type === "peers") this.#peers = detail.peers;
    else if (type !== "remark") return this.#active?.[HEAR](news, bytes);
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

export class Painting {
  #resolve;
  #reject;
  #cancel;
  #signal;
  #end;
  #sent = false;
  #news = [];
  #wake = null;
  #onAbort = () => this.abort(this.#signal.reason);

  constructor(key, signal, cancel) {
    if (key !== BUILD) throw new TypeError("A picture is painted with room.paint(recipe).");
    this.done = false;
    this.picture = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.picture.catch(() => {}); // Whoever only iterates hears of a failure there.
    this.#cancel = cancel;
    this.#signal = signal;
    if (signal?.aborted) this.abort(signal.reason);
    else signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  // Hands the wish over, and waits until the session is done with it.
  [BEGIN](wish) {
    const ended = new Promise((resolve) => (this.#end = resolve));
    this.#sent = true;
    try {
      wish();
    } catch (error) {
      this.#finish(null, error);
      this.#end();
    }
    return ended;
  }

  [HEAR](news, bytes) {
    switch (news.type) {
      case "painted": {
        const { type, png, ...rest } = news;
        this.#finish({ ...rest, png: new Blob([bytes], { type: "image/png" }) }, null);
        break;
      }
      case "failed":
        this.#finish(null, new Error(news.text));
        break;
      case "cancelled":
        this.#finish(null, givenUp());
        break;
      case "preview":
        return this.#say({ ...news, rgba: new Uint8ClampedArray(bytes.buffer, bytes.byteOffset, bytes.length) });
      default:
        return this.#say(news);
    }
    this.#end();
  }

  abort(reason = givenUp()) {
    if (this.done) return;
    this.#finish(null, reason);
    if (this.#sent) this.#cancel();
  }

  then(fulfilled, rejected) {
    return this.picture.then(fulfilled, rejected);
  }

  catch(rejected) {
    return this.picture.catch(rejected);
  }

  finally(settled) {
    return this.picture.finally(settled);
  }

  async *[Symbol.asyncIterator]() {
    for (;;) {
      while (this.#news.length > 0) yield this.#news.shift();
      if (this.done) break;
      await new Promise((resolve) => (this.#wake = resolve));
    }
    await this.picture; // Ends the loop, or throws what went wrong.
  }

  #say(news) {
    if (this.#news.length >= NEWS_MAX) this.#news.shift();
    this.#news.push(news);
    this.#wake?.();
  }

  #finish(picture, error) {
    if (this.done) return;
    this.done = true;
    this.#signal?.removeEventListener("abort", this.#onAbort);
    if (picture) this.#resolve(picture);
    else this.#reject(error);
    this.#wake?.();
  }
}

function givenUp() {
  return new DOMException("The picture was given up.", "AbortError");
}

// Seeds have 64 bits, numbers in JSON only 53.
function seed(seed) {
  return seed === undefined || seed === null ? null : String(seed);
}

// Servers as RTCPeerConnection takes them, with the parts that may be left out.
function servers(list = []) {
  return list.map(({ urls, username = "", credential = "" }) => ({ urls: [urls].flat(), username, credential }));
}
