// Draws the figure that a LivePlot model holds, in the page's theme, never more than the latest.

const QUIET_MS = 400; // a page reports what it drew after a pause,
const SILENT_MS = 5000; // or in the midst of a stream after this long
const REACH_PX = 13; // so near a dot is taken hold of,
const DRAG_MS = 50; // and tells where it is so often while it is dragged
const QUIETLY = { preventScroll: true };
const CONFIG = {
  displayModeBar: false, // our own buttons: reachable by keyboard, and nothing that uploads
  displaylogo: false,
  plotlyServerURL: "",
  responsive: false,
  doubleClick: "reset",
  scrollZoom: false,
  plotGlPixelRatio: globalThis.devicePixelRatio ?? 1, // plotly's default of 2 draws four times as many
};

// ---- one view -----------------------------------------------------------------------------

class View {
  constructor(model, el) {
    Object.assign(this, { model, el, waiting: false, gone: false, last: 0, library: null, error: "" });
    Object.assign(this, { revision: -1, fresh: 0, held: {}, off: new Set(), reported: 0, kept: [] });
    const word = (key) => worded(model, key);
    this.heading = h("div", { class: "dpk-plot-title" });
    this.tools = toolbar(this);
    this.walk = h("input", { class: "dpk-track dpk-walk", type: "range", min: 0, hidden: "hidden" });
    this.walk.addEventListener("input", () => this.step());
    this.legend = roving(h("div", { class: "dpk-legend", "aria-label": word("legend") }));
    this.plot = h("div", { class: "dpk-figure", role: "img", "aria-label": word("drawing") });
    this.note = h("div", { class: "dpk-wait" }, word("drawing"));
    this.canvas = h("div", { class: "dpk-canvas" }, this.note, this.legend, this.plot, this.walk);
    this.switch = this.tools.querySelector('[data-tool="table"]');
    el.classList.add("dpk", "dpk-plot");
    el.replaceChildren(
      h("div", { class: "dpk-plot-head" }, this.heading, this.tools), this.canvas);
    this.named();
    this.watch();
    this.grip();
  }

  // dots of a trace whose meta is "handles" are dragged up and down, those of "choices" clicked
  grip() {
    const { plot } = this;
    plot.addEventListener("pointerdown", (event) => {
      const found = event.button ? null : this.under(event);
      if (!found) return;
      event.stopPropagation();
      event.preventDefault(); // or plotly would begin to draw a box
      if (found.meta === "choices") return this.model.send({ chosen: found.place });
      this.dragged = found.place;
      plot.setPointerCapture(event.pointerId);
    }, true);
    plot.addEventListener("pointermove", (event) => {
      if (this.dragged === undefined) {
        plot.classList.toggle("dpk-grip", Boolean(this.under(event)));
      } else this.drag(event, false);
    }, true);
    for (const end of ["pointerup", "pointercancel"]) {
      plot.addEventListener(end, (event) => {
        if (this.dragged !== undefined) this.drag(event, true);
        this.dragged = undefined;
      }, true);
    }
  }

  under(event) {
    const box = this.plot.querySelector(".nsewdrag")?.getBoundingClientRect();
    const { xaxis, yaxis } = this.plot._fullLayout ?? {};
    let found = null;
    let best = REACH_PX;
    for (const { meta, x, y } of box && this.figure ? this.figure.data : []) {
      if (meta !== "handles" && meta !== "choices") continue;
      for (let place = 0; place < x.length; place += 1) {
        const across = box.left + xaxis.d2p(x[place]) - event.clientX;
        const down = box.top + yaxis.d2p(y[place]) - event.clientY;
        const far = Math.hypot(across, down);
        if (far < best) [best, found] = [far, { meta, place }];
      }
    }
    return found;
  }

  // dots that a click chooses are walked with arrow keys from left to right
  path() {
    const trace = this.figure.data.find(({ meta }) => meta === "choices");
    const places = trace ? Array.from(trace.x, (_, place) => place) : [];
    this.order = places.sort((a, b) => trace.x[a] - trace.x[b] || trace.y[a] - trace.y[b]);
    this.walk.hidden = places.length < 2;
    this.walk.max = places.length - 1;
    if (this.revision < 0) this.walk.value = 0;
    this.walk.setAttribute("aria-label", this.model.get("title"));
  }

  step() {
    const place = this.order[this.walk.valueAsNumber];
    const trace = this.figure.data.find(({ meta }) => meta === "choices");
    const { xaxis, yaxis } = this.figure.layout;
    const say = (axis, value) => `${plain(axis?.title?.text ?? "")} ${brief(value)}`;
    const words = `${say(xaxis, trace.x[place])}, ${say(yaxis, trace.y[place])}`;
    this.walk.setAttribute("aria-valuetext", words);
    this.model.send({ chosen: place });
  }

  drag(event, last) {
    const now = performance.now();
    if (!last && now - (this.sent ?? 0) < DRAG_MS) return;
    this.sent = now;
    const box = this.plot.querySelector(".nsewdrag").getBoundingClientRect();
    const height = this.plot._fullLayout.yaxis.p2d(event.clientY - box.top);
    this.model.send({ moved: [this.dragged, height] });
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
    const attributes = ["data-jp-theme-light", "data-jp-theme-name"];
    this.themed.observe(document.body, { attributeFilter: attributes });
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.scheme.addEventListener("change", again);
    this.undo = () => this.scheme.removeEventListener("change", again);
  }

  named() {
    const title = this.model.get("title");
    this.heading.textContent = this.el.dataset.title = title;
    this.tools.setAttribute("aria-label", worded(this.model, "tools", { title }));
    this.canvas.style.height = `${this.model.get("height")}px`;
  }

  hidden() {
    const { top, bottom } = this.el.getBoundingClientRect();
    return Number(bottom < 0 || top > window.innerHeight);
  }

  // the numbers in place of the picture, as they are now
  tabulate() {
    const open = this.numbers === undefined && Boolean(this.figure);
    this.numbers?.remove();
    this.numbers = undefined;
    this.switch.setAttribute("aria-pressed", open);
    if (!open) return;
    this.numbers = tabled(this.figure, this.model.get("title"));
    this.canvas.append(this.numbers);
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
    if (!this.library || this.gone) return;
    if (!this.width) {
      // a change of JupyterLab's theme hides all for a moment that the observer may not see
      this.again = setTimeout(() => this.canvas.clientWidth && ask(this), 500);
      return;
    }
    const state = this.model.get("_state");
    try {
      if (state.revision !== this.revision) {
        const { made, kept } = rebuilt([state.layout, ...state.data], this.kept);
        const [layout, ...data] = made;
        Object.assign(this, { kept, figure: { data, layout } });
        this.path();
        // its rows alone are replaced: focus and place stay
        this.numbers?.firstChild.replaceWith(listing(this.figure));
      }
      const look = theme(this.el);
      this.explain(look);
      const height = this.model.get("height") - this.legend.offsetHeight;
      const uirevision = `view ${this.fresh}`;
      const asked = merged(this.figure.layout, { ...this.held, uirevision });
      const figure = ringed({ data: this.shown(), layout: asked });
      const { data, layout } = dressed(figure, look, this.width, height);
      this.fitted(data, layout).then(
        () => this.finished(state, look), (error) => this.failed(error));
    } catch (error) {
      this.failed(error);
    }
  }

  async fitted(data, layout) {
    await this.library.react(this.plot, data, layout, CONFIG);
    const rooms = crowded(this.plot);
    if (!Object.keys(rooms).length) return;
    await this.library.react(this.plot, data, broken(layout, rooms), CONFIG);
  }

  explain(look) {
    const wanted = entries(this.figure);
    const signature = JSON.stringify([wanted, look.ink]);
    if (signature === this.signature) return;
    this.signature = signature;
    const at = this.legend.contains(document.activeElement) && document.activeElement.dataset.key;
    this.legend.replaceChildren(...wanted.map((entry) => this.toggle(entry, look)));
    this.legend.rest();
    if (at === false) return;
    const same = [...this.legend.children].find((one) => one.dataset.key === at);
    if (same ?? this.legend.firstChild) (same ?? this.legend.firstChild).focus(QUIETLY);
    else passed(this.el, this.legend);
  }

  toggle({ key, name, colour, drawn, dash }, look) {
    const pressed = () => String(!this.off.has(key));
    const named = { class: "dpk-key", "data-key": key, "aria-pressed": pressed() };
    const toggle = h("button", { type: "button", ...named });
    toggle.innerHTML = `<svg viewBox="0 0 22 10" aria-hidden="true">${SWATCHES[drawn]}</svg>`;
    toggle.firstChild.style.color = look.dark ? bright(colour, look.ink) : colour;
    toggle.firstChild.firstChild.setAttribute("stroke-dasharray", dash);
    toggle.append(name);
    toggle.addEventListener("click", () => {
      if (!this.off.delete(key)) this.off.add(key);
      toggle.setAttribute("aria-pressed", pressed());
      ask(this);
    });
    return toggle;
  }

  shown() {
    const hidden = (trace) => this.off.has(trace.legendgroup || trace.name);
    return this.figure.data.map((t) => (hidden(t) ? { ...t, visible: false } : t));
  }

  finished(state, look) {
    if (this.gone) return;
    const arrived = this.revision < 0;
    this.revision = state.revision;
    this.note.hidden = !bare(this.figure);
    this.note.className = "dpk-wait";
    this.note.removeAttribute("role");
    this.note.textContent = state.summary;
    this.error = "";
    useful(this);
    const said = [this.model.get("title"), state.summary].filter(Boolean).join(": ");
    this.plot.setAttribute("aria-label", said || worded(this.model, "plot"));
    Object.assign(this.el.dataset, { drawn: state.revision, ink: look.ink, width: this.width });
    clearTimeout(this.later);
    if (arrived) this.report(true);
    else if (performance.now() - this.reported > SILENT_MS) this.report(false);
    else this.later = setTimeout(() => this.report(true), QUIET_MS);
  }

  report(settled) {
    this.reported = performance.now();
    this.model.send({ drawn: this.revision, settled });
  }

  failed(error) {
    const reason = String(error?.message ?? error);
    if (this.gone || this.error === reason) return;
    console.error(error);
    this.error = reason;
    this.kept = []; // what was computed in part is computed anew
    this.note.textContent = worded(this.model, "failed", { reason });
    this.note.className = "dpk-wait dpk-broken";
    this.note.setAttribute("role", "alert");
    this.note.hidden = false;
    this.model.send({ failed: reason });
  }

  remove() {
    this.gone = true;
    clearTimeout(this.later);
    clearTimeout(this.again);
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
