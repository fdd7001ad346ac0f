// What plots and controls share in the page: keys, building elements, words. Joined before both.

// JupyterLab's one-key shortcuts (arrows, b, d d) would act on the notebook while one of our
// elements has the focus; keys with Ctrl, Alt or Meta and Shift+Enter stay the notebook's
if (!globalThis[Symbol.for("dpkit.keys.1")]) {
  globalThis[Symbol.for("dpkit.keys.1")] = true;
  const ours = (event) => {
    const theirs = event.ctrlKey || event.metaKey || event.altKey;
    const run = event.shiftKey && event.key === "Enter";
    if (!event.target.closest?.(".dpk")) return;
    event.target.toggleAttribute("data-lm-suppress-shortcuts", !theirs && !run);
  };
  window.addEventListener("keydown", ours, true);
}

// One voice for the page: a screen reader hears what changed when it has come to rest, in a
// stream now and then; the same words are never said twice in a row.
const REST_MS = 700;
const SPOKEN_MS = 10000;

const VOICE = (globalThis[Symbol.for("dpkit.voice.1")] ??= {
  waiting: new Map(), said: new Map(), last: 0, since: 0, timer: 0, region: null,
});

function announce(who, words) {
  const now = performance.now();
  if (!VOICE.waiting.size) VOICE.since = Math.max(now, VOICE.last);
  VOICE.waiting.set(who, words);
  clearTimeout(VOICE.timer);
  const due = Math.min(now + REST_MS, Math.max(now, VOICE.since + SPOKEN_MS));
  VOICE.timer = setTimeout(speak, due - now);
}

function speak() {
  if (!VOICE.region?.isConnected) {
    VOICE.region = h("div", { class: "dpk-hidden dpk-voice", "aria-live": "polite" });
    document.body.append(VOICE.region);
  }
  const news = [...VOICE.waiting].filter(([who, words]) => words && VOICE.said.get(who) !== words);
  for (const [who, words] of VOICE.waiting) VOICE.said.set(who, words);
  VOICE.waiting.clear();
  if (!news.length) return;
  VOICE.last = performance.now();
  VOICE.region.textContent = news.map(([, words]) => words).join(" ");
}

function silence(who) {
  VOICE.waiting.delete(who);
  VOICE.said.delete(who);
}

let made = 0;
const fresh = () => `dpk-${Date.now().toString(36)}-${(made += 1)}`;

function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== "" && value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function worded(model, key, parts = {}) {
  return (model.get("words")[key] ?? "").replace(/\{(\w+)\}/g, (_, name) => parts[name] ?? "");
}

// after a reload the models come back in any order
async function arrived(manager, id) {
  for (let wait = 50; ; wait *= 1.5) {
    try {
      return await manager.get_model(id);
    } catch (error) {
      if (wait > 5000) throw error;
      await new Promise((done) => setTimeout(done, wait));
    }
  }
}
