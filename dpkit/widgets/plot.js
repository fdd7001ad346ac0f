// Draws the figure that a LivePlot model holds, in the page's theme, never more than the latest.

const PAGE = (globalThis[Symbol.for("dpkit.plots.1")] ??= { plotly: {}, queue: [], frame: 0 });
const FRAME_MS = 12; // of a 16 ms frame: several plots may share one, the page stays responsive
const QUIET_MS = 400; // a page reports what it drew after a pause, not 8 times a second
const CONFIG = {
  displayModeBar: false, // our own buttons: reachable by keyboard, and nothing that uploads
  displaylogo: false,
  plotlyServerURL: "",
  responsive: false,
  doubleClick: "reset",
  scrollZoom: false,
};
const ICONS = {
  zoom_in: "M7 3v8M3 7h8M10.5 10.5L14 14",
  zoom_out: "M3 7h8M10.5 10.5L14 14",
  reset: "M3 3v4h4M3.5 7A5 5 0 1 1 4 10.5",
  png: "M8 2v7M5 6.5L8 9.5l3-3M3 13h10",
  svg: "M3 12C5 2 8 14 13 4M3 12h.01M13 4h.01",
};
const ARRAYS = {
  f4: Float32Array, f8: Float64Array, i1: Int8Array, i2: Int16Array, i4: Int32Array,
  u1: Uint8Array, u2: Uint16Array, u4: Uint32Array,
};

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

// ---- plotly.js: once for each page --------------------------------------------------------

function plotly(model) {
  const id = model.get("bundle").replace("IPY_MODEL_", "");
  PAGE.plotly[id] ??= load(model.widget_manager, id).catch((error) => {
    delete PAGE.plotly[id];
    throw error;
  });
  return PAGE.plotly[id];
}

async function load(manager, id) {
  const bundle = await found(manager, id);
  const version = bundle.get("version");
  PAGE.plotly[version] ??= evaluated(bundle.get("gz"));
  return PAGE.plotly[version];
}

async function found(manager, id) {
  // after a reload the models come back in any order
  for (let wait = 50; ; wait *= 1.5) {
    try {
      return await manager.get_model(id);
    } catch (error) {
      if (wait > 5000) throw error;
      await new Promise((done) => setTimeout(done, wait));
    }
  }
}

async function evaluated(gz) {
  const inflated = new Blob([gz]).stream().pipeThrough(new DecompressionStream("gzip"));
  const code = await new Response(inflated).text();
  // shadow AMD and CommonJS, and leave a Plotly that the page already has in its place
  const slot = "__dpkit_plotly_slot";
  const before = "(function(){var module={exports:{}},exports=module.exports,define;";
  const after = `\n;window.${slot}=module.exports;})();`;
  const had = window.Plotly;
  const url = URL.createObjectURL(new Blob([before, code, after], { type: "text/javascript" }));
  try {
    await new Promise((done, failed) => {
      const script = document.createElement("script");
      script.onload = done;
      script.onerror = () => failed(new Error("the page refused to run plotly.js"));
      script.src = url;
      document.head.append(script);
      script.remove();
    });
  } finally {
    URL.revokeObjectURL(url);
  }
  const library = window[slot];
  delete window[slot];
  if (had === undefined) delete window.Plotly;
  else window.Plotly = had;
  if (!library?.react) throw new Error("plotly.js did not load");
  return library;
}

// ---- one queue of plots to draw for the whole page ----------------------------------------

function ask(view) {
  if (!view.waiting) {
    view.waiting = true;
    PAGE.queue.push(view);
  }
  PAGE.frame ||= requestAnimationFrame(frame);
}

function frame() {
  PAGE.frame = 0;
  const until = performance.now() + FRAME_MS;
  do {
    const view = PAGE.queue.shift();
    if (!view) return;
    view.waiting = false;
    view.draw();
  } while (performance.now() < until);
  if (PAGE.queue.length) PAGE.frame = requestAnimationFrame(frame);
}

// ---- the figure: bytes to arrays, theme under the caller's layout -------------------------

function revived(value) {
  if (Array.isArray(value)) return value.map(revived);
  if (value === null || typeof value !== "object") return value;
  if ("list" in value && Object.keys(value).length === 1) return value.list;
  if ("bytes" in value && "dtype" in value) return numbers(value);
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, revived(item)]));
}

function numbers({ dtype, shape, bytes }) {
  const flat = new ARRAYS[dtype](
    bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength),
  );
  return nested(flat, shape);
}

function nested(flat, shape) {
  if (shape.length < 2) return flat;
  const [rows, ...rest] = shape;
  const size = flat.length / rows;
  return Array.from({ length: rows }, (_, row) =>
    nested(flat.subarray(row * size, (row + 1) * size), rest),
  );
}

function merged(under, over) {
  const plain = (x) => x && typeof x === "object" && Object.getPrototypeOf(x) === Object.prototype;
  if (!plain(under) || !plain(over)) return over === undefined ? under : over;
  const out = { ...under };
  for (const key of Object.keys(over)) out[key] = merged(under[key], over[key]);
  return out;
}

function theme(el) {
  const css = getComputedStyle(el);
  const read = (name) => css.getPropertyValue(name).trim();
  return {
    ink: read("--dpk-ink"), muted: read("--dpk-muted"), grid: read("--dpk-grid"),
    line: read("--dpk-line"), surface: read("--dpk-surface"), family: css.fontFamily,
    dark: read("--dpk-dark") === "1",
  };
}

function dressed(figure, look, width, height) {
  const axis = {
    gridcolor: look.grid, zerolinecolor: look.grid, linecolor: look.line, automargin: true,
    title: { standoff: 6, font: { size: 12, color: look.muted } },
    tickfont: { size: 11, color: look.muted }, ticklabelstandoff: 2, fixedrange: false,
  };
  const under = {
    font: { family: look.family, size: 12, color: look.ink },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 52, r: 10, t: 8, b: 36 },
    hoverlabel: {
      bgcolor: look.surface, bordercolor: look.line, font: { color: look.ink, size: 12 },
    },
    modebar: { remove: ["sendChartToCloud"] },
  };
  for (const key of ["xaxis", "yaxis", ...Object.keys(figure.layout)]) {
    if (/^[xy]axis\d*$/.test(key)) under[key] = axis;
  }
  const layout = { ...merged(under, figure.layout), width, height, autosize: false, showlegend: false };
  // black ink of the Okabe-Ito set would vanish on a dark page
  return look.dark
    ? { data: lit(figure.data, look.ink), layout: lit(layout, look.ink) }
    : { data: figure.data, layout };
}

function lit(value, ink) {
  if (typeof value === "string") return /^(#000|#000000|black)$/i.test(value) ? ink : value;
  if (Array.isArray(value)) return value.length < 500 ? value.map((v) => lit(v, ink)) : value;
  if (!value || Object.getPrototypeOf(value) !== Object.prototype) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, lit(item, ink)]));
}

// ---- the legend: native toggles above the plot, which wrap and can be reached by keyboard ---

const DASHES = { dash: "6 4", dot: "2 3", dashdot: "6 3 2 3", longdash: "10 4", longdashdot: "9 3 2 3" };

function entries({ data, layout }) {
  const groups = new Map();
  for (const trace of data) {
    if (!trace.name || trace.visible === false) continue;
    const key = trace.legendgroup || trace.name;
    if (trace.showlegend !== false && !groups.has(key)) groups.set(key, sign(trace, key));
  }
  const asked = layout.showlegend ?? groups.size > 1;
  return asked ? [...groups.values()] : [];
}

function sign(trace, key) {
  const one = (colour) => (typeof colour === "string" ? colour : undefined);
  const marker = one(trace.marker?.color);
  const mode = trace.mode ?? (trace.type === "scatter" || !trace.type ? "lines" : "");
  const colour = one(trace.line?.color) ?? marker ?? one(trace.fillcolor) ?? "currentColor";
  const drawn = mode.includes("lines") ? "line" : mode.includes("markers") ? "dot" : "block";
  return { key, name: trace.name, colour, drawn, dash: DASHES[trace.line?.dash] ?? "" };
}

const SWATCHES = {
  line: '<path d="M1 5h20" fill="none" stroke="currentColor" stroke-width="2"/>',
  dot: '<circle cx="11" cy="5" r="4" fill="currentColor"/>',
  block: '<rect x="5" width="12" height="10" rx="2" fill="currentColor"/>',
};

// ---- one view -----------------------------------------------------------------------------

function button(name, label, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = "dpk-tool";
  made.title = label;
  made.setAttribute("aria-label", label);
  made.innerHTML = `<svg viewBox="0 0 16 16" aria-hidden="true"><path d="${ICONS[name]}"/></svg>`;
  if (name.startsWith("zoom")) {
    made.firstChild.insertAdjacentHTML("afterbegin", '<circle cx="7" cy="7" r="5.2"/>');
    made.querySelector("path").setAttribute("d", name === "zoom_in"
      ? "M7 4.8v4.4M4.8 7h4.4M11 11l3 3" : "M4.8 7h4.4M11 11l3 3");
  }
  made.addEventListener("click", act);
  return made;
}

class View {
  constructor(model, el) {
    Object.assign(this, { model, el, waiting: false, gone: false });
    Object.assign(this, { library: null, revision: -1, fresh: 0, held: {}, off: new Set() });
    el.classList.add("dpk", "dpk-plot");
    el.innerHTML = `<div class="dpk-plot-head"><div class="dpk-plot-title"></div>
      <div class="dpk-tools" role="group"></div></div>
      <div class="dpk-canvas"><div class="dpk-wait" role="status"></div>
      <div class="dpk-legend" role="group"></div>
      <div class="dpk-figure" role="img"></div></div>`;
    this.heading = el.querySelector(".dpk-plot-title");
    this.tools = el.querySelector(".dpk-tools");
    this.canvas = el.querySelector(".dpk-canvas");
    this.plot = el.querySelector(".dpk-figure");
    this.note = el.querySelector(".dpk-wait");
    this.legend = el.querySelector(".dpk-legend");
    this.note.textContent = this.words("drawing");
    this.equip();
    this.named();
    this.watch();
  }

  words(key, parts = {}) {
    const text = this.model.get("words")[key] ?? "";
    return text.replace(/\{(\w+)\}/g, (_, name) => parts[name] ?? "");
  }

  equip() {
    const add = (name, act) => this.tools.append(button(name, this.words(name), act));
    add("zoom_in", () => this.zoom(0.5));
    add("zoom_out", () => this.zoom(2));
    add("reset", () => this.zoom(0));
    add("png", () => this.save("png"));
    add("svg", () => this.save("svg"));
  }

  watch() {
    const again = () => ask(this);
    this.model.on("change:_state", again);
    this.model.on("change:title", () => this.named());
    this.model.on("change:height", () => (this.named(), ask(this)));
    // a hidden tab has no width; the observer asks again when it is shown or resized
    this.sized = new ResizeObserver(() => this.canvas.clientWidth !== this.width && ask(this));
    this.sized.observe(this.canvas);
    this.themed = new MutationObserver(again);
    const attributes = ["data-jp-theme-light", "data-jp-theme-name", "class"];
    this.themed.observe(document.body, { attributeFilter: attributes });
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.scheme.addEventListener("change", again);
    this.undo = () => this.scheme.removeEventListener("change", again);
  }

  named() {
    const title = this.model.get("title");
    this.heading.textContent = this.el.dataset.title = title;
    this.tools.setAttribute("aria-label", this.words("tools", { title }));
    this.canvas.style.height = `${this.model.get("height")}px`;
  }

  async start() {
    try {
      this.library = await plotly(this.model);
      if (!this.gone) ask(this);
    } catch (error) {
      this.failed(error);
    }
  }

  draw() {
    this.width = this.canvas.clientWidth;
    if (!this.library || this.gone || !this.width) return;
    const state = this.model.get("_state");
    if (state.revision !== this.revision) {
      this.figure = { data: revived(state.data), layout: revived(state.layout) };
    }
    try {
      const look = theme(this.el);
      this.explain(look);
      const height = this.model.get("height") - this.legend.offsetHeight;
      const uirevision = `view ${this.fresh}`;
      const asked = merged(this.figure.layout, { ...this.held, uirevision });
      const figure = { data: this.shown(), layout: asked };
      const { data, layout } = dressed(figure, look, this.width, height);
      this.library.react(this.plot, data, layout, CONFIG).then(
        () => this.finished(state), (error) => this.failed(error));
    } catch (error) {
      this.failed(error);
    }
  }

  explain(look) {
    const wanted = entries(this.figure);
    const signature = JSON.stringify([wanted, look.ink]);
    if (signature === this.signature) return;
    this.signature = signature;
    this.legend.replaceChildren(...wanted.map((entry) => this.toggle(entry, look)));
  }

  toggle({ key, name, colour, drawn, dash }, look) {
    const toggle = document.createElement("button");
    toggle.type = "button";
    toggle.className = "dpk-key";
    toggle.setAttribute("aria-pressed", !this.off.has(key));
    toggle.innerHTML = `<svg viewBox="0 0 22 10" aria-hidden="true">${SWATCHES[drawn]}</svg>`;
    toggle.firstChild.style.color = look.dark ? lit(colour, look.ink) : colour;
    toggle.firstChild.firstChild.setAttribute("stroke-dasharray", dash);
    toggle.append(name);
    toggle.addEventListener("click", () => {
      if (!this.off.delete(key)) this.off.add(key);
      toggle.setAttribute("aria-pressed", !this.off.has(key));
      ask(this);
    });
    return toggle;
  }

  shown() {
    const hidden = (trace) => this.off.has(trace.legendgroup || trace.name);
    return this.figure.data.map((t) => (hidden(t) ? { ...t, visible: false } : t));
  }

  finished(state) {
    if (this.gone) return;
    const arrived = this.revision < 0;
    this.revision = state.revision;
    this.note.hidden = true;
    this.note.classList.remove("dpk-broken");
    const title = this.model.get("title");
    this.plot.setAttribute("aria-label", [title, state.summary].filter(Boolean).join(": ") || "Plot");
    this.el.dataset.drawn = state.revision;
    if (arrived) this.report(true);
    else this.later ??= setTimeout(() => this.report(false), QUIET_MS);
  }

  report(arrived) {
    this.later = undefined;
    if (!this.gone) this.model.send({ drawn: this.revision, arrived });
  }

  failed(error) {
    if (this.gone) return;
    console.error(error);
    const reason = String(error?.message ?? error);
    this.note.textContent = this.words("failed", { reason });
    this.note.classList.add("dpk-broken");
    this.note.hidden = false;
    this.model.send({ failed: reason });
  }

  zoom(factor) {
    // ranges are kept here, not in the plot, so that the next update does not undo them
    const full = this.plot._fullLayout ?? {};
    this.fresh += 1;
    this.held = {};
    for (const key of factor ? Object.keys(full) : []) {
      if (!/^[xy]axis\d*$/.test(key) || full[key].fixedrange || !full[key].range) continue;
      const [low, high] = full[key].range.map((end) => full[key].r2l(end));
      const middle = (low + high) / 2;
      const half = ((high - low) / 2) * factor;
      this.held[key] = { range: [middle - half, middle + half].map((end) => full[key].l2r(end)) };
    }
    ask(this);
  }

  save(format) {
    if (!this.library) return;
    const look = theme(this.el);
    const text = this.model.get("title");
    const layout = merged(this.plot.layout, {
      paper_bgcolor: look.surface, showlegend: this.legend.childElementCount > 0,
      legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom" }, title: { text, x: 0.02, font: { size: 15 } },
      margin: { ...this.plot.layout.margin, t: 64 },
    });
    const filename = text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-") || "plot";
    const size = { width: Math.max(640, this.width), height: this.model.get("height") + 80 };
    Object.assign(layout, size);
    this.library
      .downloadImage({ data: this.plot.data, layout, config: CONFIG }, { format, filename, ...size, scale: format === "png" ? 2 : 1 })
      .catch((error) => this.failed(error));
  }

  remove() {
    this.gone = true;
    clearTimeout(this.later);
    PAGE.queue = PAGE.queue.filter((view) => view !== this);
    this.sized.disconnect();
    this.themed.disconnect();
    this.undo();
    this.library?.purge(this.plot);
  }
}

export default {
  render({ model, el }) {
    const view = new View(model, el);
    view.start();
    return () => view.remove();
  },
};
