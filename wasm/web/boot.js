// Starts the page: the only script of index.html. Everything else is WebAssembly.

// Where the browser enforces Trusted Types, scripts come from this folder and markup from nowhere.
const home = new URL("./", import.meta.url);
if (self.trustedTypes?.createPolicy) {
  try {
    self.trustedTypes.createPolicy("default", {
      createScriptURL(text) {
        const url = new URL(text, document.baseURI);
        if (url.href.startsWith(home.href)) return url.href;
        throw new TypeError("scripts come only from the page's own folder");
      },
    });
  } catch {
    // The policy exists already, or this host's rules name another one: the page works without.
  }
}

const trouble = document.getElementById("trouble");
const skip = document.getElementById("skip");
// The fragment of the address is the room's secret: the link only moves the cursor.
skip.addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("prompt-field").focus();
});

// An activated new version takes over at once only if nothing has been started from the old one.
const TAKE_OVER_MS = 2000;

async function takeOver() {
  const registration = await navigator.serviceWorker?.getRegistration(home.href);
  if (!registration?.waiting || !navigator.serviceWorker.controller) return false;
  const changed = new Promise((resolve) => {
    navigator.serviceWorker.addEventListener("controllerchange", () => resolve(true), { once: true });
    setTimeout(() => resolve(false), TAKE_OVER_MS);
  });
  registration.waiting.postMessage("activate");
  return changed;
}

// Keeps the page for visits without a network, after it has started.
async function keep(page) {
  if (!navigator.serviceWorker) return;
  try {
    const answer = await fetch(new URL("files.json", home), { cache: "no-cache" });
    if (!answer.ok) return;
    const { version } = await answer.json();
    if (!/^[0-9a-f]{64}$/.test(version)) return;
    const had = navigator.serviceWorker.controller !== null;
    const registration = await navigator.serviceWorker.register(new URL(`sw.js?v=${version}`, home).href);
    const worker = registration.installing;
    worker?.addEventListener("statechange", () => {
      if (worker.state === "installed" && had) page.page_remark("A new version of this page is ready; it opens with the next visit.");
      if (worker.state === "redundant" && !navigator.serviceWorker.controller) {
        page.page_remark("This browser could not keep the page; without a network it will not open.");
      }
    });
  } catch {
    // No network, or a browser that keeps nothing here: the page itself works.
  }
}

async function start() {
  if (typeof WebAssembly !== "object") throw new Error("it has no WebAssembly");
  if (await takeOver().catch(() => false)) {
    location.reload();
    return;
  }
  const page = await import("./page/page.js");
  await page.default();
  Object.defineProperty(window, "manyhands", { value: Object.freeze({ state: () => JSON.parse(page.page_state()) }) });
  page.page_open();
  trouble.hidden = true;
  await keep(page);
}

start().catch((error) => {
  trouble.hidden = false;
  trouble.textContent = `The page could not start: ${String(error?.message ?? error).slice(0, 200)}. A reload may help; otherwise try another browser (Chrome, Edge, Firefox or Safari from 2023 on).`;
});
