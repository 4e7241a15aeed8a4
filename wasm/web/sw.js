// Keeps one whole, verified version of the page, so that it opens without a network.
//
// A version is the list files.json: paths and SHA-256 sums. The version's own cache is filled first and gets its list
// last; a cache without its list is no version. Every answer from the cache is verified again, and a broken entry is
// fetched anew. Models are the engine's to keep, except the card that the page itself reads.

const PREFIX = "manyhands-";
const version = new URL(self.location.href).searchParams.get("v") ?? "";
const cacheName = PREFIX + version;
const scope = new URL("./", self.location.href);
const LIST = "files.json";

// Paths of the relay that are answers of the moment, and files that nobody asks for without a network.
const isKept = (path) =>
  path !== "sw.js" && path !== LIST && !path.endsWith(".br") && (!path.startsWith("models/") || path.endsWith("/model.json"));

const hex = (buffer) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");
const sha256 = async (bytes) => hex(await crypto.subtle.digest("SHA-256", bytes));

/** A copy of `answer` with these bytes and all headers but those of the transfer: CSP, COOP and COEP stay. */
function copy(answer, bytes) {
  const headers = new Headers(answer.headers);
  for (const name of ["content-encoding", "content-length", "transfer-encoding", "vary"]) headers.delete(name);
  return new Response(bytes, { status: 200, headers });
}

/** Fetches a file and verifies it; a wrong one is asked for once more past every cache in between. */
async function load(file) {
  for (const cache of ["no-cache", "reload"]) {
    const answer = await fetch(new URL(file.path, scope), { cache, credentials: "same-origin" });
    if (!answer.ok) throw new Error(`${file.path}: the host answered ${answer.status}`);
    const bytes = await answer.arrayBuffer();
    if ((await sha256(bytes)) === file.sha256) return copy(answer, bytes);
  }
  throw new Error(`${file.path} is not what the list says`);
}

/** The same bytes out of an earlier version, so that only what changed is fetched. */
async function borrow(file) {
  for (const name of await caches.keys()) {
    if (!name.startsWith(PREFIX) || name === cacheName) continue;
    const answer = await (await caches.open(name)).match(new URL(file.path, scope), { ignoreSearch: true });
    if (!answer) continue;
    const bytes = await answer.arrayBuffer();
    if ((await sha256(bytes)) === file.sha256) return copy(answer, bytes);
  }
  return undefined;
}

async function install() {
  const answer = await fetch(new URL(LIST, scope), { cache: "no-cache" });
  const list = await answer.clone().json();
  if (list.version !== version) throw new Error("the page changed while it was being kept");
  const cache = await caches.open(cacheName);
  for (const file of list.files.filter((file) => isKept(file.path))) {
    const url = new URL(file.path, scope);
    const kept = await cache.match(url);
    if (kept && (await sha256(await kept.arrayBuffer())) === file.sha256) continue;
    // Headers decide what the page may do, so the document always comes fresh.
    const fresh = file.path === "index.html" ? undefined : await borrow(file);
    await cache.put(url, fresh ?? (await load(file)));
  }
  await cache.put(new URL(LIST, scope), answer);
}

/** Forgets every other version. */
async function activate() {
  const names = await caches.keys();
  await Promise.all(names.filter((name) => name.startsWith(PREFIX) && name !== cacheName).map((name) => caches.delete(name)));
  await self.clients.claim();
}

let known;
/** This version's files by path; empty if the browser threw the cache away. */
async function files() {
  if (known) return known;
  const answer = await (await caches.open(cacheName)).match(new URL(LIST, scope));
  if (!answer) return new Map();
  const list = await answer.json();
  known = new Map(list.files.filter((file) => isKept(file.path)).map((file) => [file.path, file]));
  return known;
}

async function serve(request, path) {
  const file = (await files()).get(path);
  if (!file) return fetch(request);
  const cache = await caches.open(cacheName);
  const url = new URL(path, scope);
  const kept = await cache.match(url);
  if (kept) {
    const bytes = await kept.arrayBuffer();
    if ((await sha256(bytes)) === file.sha256) return copy(kept, bytes);
    await cache.delete(url);
  }
  try {
    const fresh = await load(file);
    await cache.put(url, fresh.clone()).catch(() => {});
    return fresh;
  } catch {
    // The host has another version already, or there is no network: what the network says is the better answer.
    return fetch(request);
  }
}

self.addEventListener("install", (event) => event.waitUntil(install()));
self.addEventListener("activate", (event) => event.waitUntil(activate()));

// A waiting version takes over where the asking page is the only one: another may be in the middle of a picture. A page
// that was just left is still counted for a moment, so the question is asked a few times.
const ASKED_MAX = 6;
const ASKED_EVERY_MS = 200;

async function takeOver() {
  for (let asked = 0; asked < ASKED_MAX; asked++) {
    const pages = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
    if (pages.length <= 1) return self.skipWaiting();
    await new Promise((resolve) => setTimeout(resolve, ASKED_EVERY_MS));
  }
}

self.addEventListener("message", (event) => {
  if (event.data === "activate") event.waitUntil(takeOver());
});

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== "GET" || url.origin !== scope.origin || !url.pathname.startsWith(scope.pathname)) return;
  if (event.request.headers.has("range")) return;
  const path = url.pathname.slice(scope.pathname.length) || "index.html";
  if (path === "addrs" || path.startsWith("api/") || !isKept(path)) return;
  event.respondWith(serve(event.request, path));
});
