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
    // out of a long panel in one go; in a list or a field Escape has a meaning of its own
    const free = event.target.matches("button, [type=range], [type=checkbox]");
    if (event.key === "Escape" && free) event.target.closest(".jp-Cell")?.focus();
  };
  window.addEventListener("keydown", ours, true);
}

// A row of buttons is one Tab stop: arrows, Home and End move within it. `rest` is to be called
// when its buttons have changed.
function roving(row) {
  const all = () => [...row.children].filter((one) => !one.hidden);
  const stop = (at) => all().forEach((one) => (one.tabIndex = one === at ? 0 : -1));
  row.setAttribute("role", "toolbar");
  row.addEventListener("focusin", (event) => stop(event.target.closest("button")));
  row.addEventListener("keydown", (event) => {
    const shown = all();
    const at = shown.indexOf(document.activeElement);
    const [next, before] = [at + 1, at - 1].map((to) => (to + shown.length) % shown.length);
    const to = { ArrowRight: next, ArrowDown: next, ArrowLeft: before, ArrowUp: before,
      Home: 0, End: shown.length - 1 }[event.key];
    if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    shown[to].focus();
  });
  row.rest = () => {
    row.hidden = !all().length;
    stop(all().find((one) => one.getAttribute("tabindex") === "0") ?? all()[0]);
  };
  row.rest();
  return row;
}

// What does not fit is scrolled to, by keyboard as well; what fits is no Tab stop.
function scrollable(el, name) {
  const fit = () => {
    const over = el.scrollWidth > el.clientWidth + 1 || el === document.activeElement;
    const scrolled = { tabindex: 0, role: "region", "aria-label": name() };
    for (const [attribute, value] of Object.entries(scrolled)) {
      if (over) el.setAttribute(attribute, value);
      else el.removeAttribute(attribute);
    }
  };
  const sized = new ResizeObserver(fit);
  sized.observe(el);
  fit.end = () => sized.disconnect();
  return fit;
}

// What has the focus may be hidden or switched off: the next control gets it, or a person at the
// keyboard would begin again at the top of the page.
const STOPS = "input, select, button, summary, a[href], [tabindex]";

function reached(el) {
  return el.checkVisibility() && !el.matches(":disabled, [tabindex='-1']");
}

function passed(root, gone) {
  const stops = [...root.querySelectorAll(STOPS)].filter((one) => one !== gone && reached(one));
  const after = stops.find((one) =>
    gone.compareDocumentPosition(one) & Node.DOCUMENT_POSITION_FOLLOWING);
  (after ?? stops.at(-1))?.focus({ preventScroll: true });
}

function held(root) {
  const gone = (at) => root.contains(at) && !(at.checkVisibility() && !at.matches(":disabled"));
  const look = (at) => gone(at) && passed(root, at);
  const eye = new MutationObserver(() => look(document.activeElement));
  eye.observe(root, { subtree: true, attributeFilter: ["hidden", "disabled"] });
  // a layout in between may have taken the focus before the observer is called
  root.addEventListener("focusout", ({ target, relatedTarget }) => {
    if (!relatedTarget) setTimeout(() => document.activeElement === document.body && look(target));
  });
  return () => eye.disconnect();
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
