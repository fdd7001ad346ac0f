// Native form elements for dpkit's control models: one renderer for each `part`.

const PLAIN = { type: "text", autocomplete: "off", spellcheck: "false" };

function follow(model, names, act) {
  for (const name of names) model.on(`change:${name}`, act);
  act();
}

function describe(model, el, target) {
  // help for the mouse (title) and for screen readers; a sentence of trouble under the control
  const help = h("span", { id: fresh(), class: "dpk-hidden" });
  const trouble = h("p", { id: fresh(), class: "dpk-trouble", role: "alert" });
  el.append(help, trouble);
  follow(model, ["help", "problem"], () => {
    help.textContent = model.get("help");
    trouble.textContent = model.get("problem");
    const head = el.querySelector(".dpk-label");
    if (head) head.title = model.get("help");
    head?.classList.toggle("dpk-helped", Boolean(model.get("help")));
  });
  for (const one of target) one.setAttribute("aria-describedby", `${help.id} ${trouble.id}`);
  return trouble;
}

// ---- slider -------------------------------------------------------------------------------

function slider(model, el) {
  const id = fresh();
  const label = h("label", { class: "dpk-label", for: id });
  const box = h("input", { class: "dpk-number", inputmode: "decimal", ...PLAIN });
  const unit = h("span", { class: "dpk-unit", "aria-hidden": "true" });
  const track = h("input", { class: "dpk-track", type: "range", id, min: 0, step: 1 });
  const ends = h("div", { class: "dpk-ends", "aria-hidden": "true" }, h("span"), h("span"));
  const shown = h("span", { class: "dpk-value" }, box, unit);
  el.append(h("div", { class: "dpk-row" }, label, shown), track, ends);
  const trouble = describe(model, el, [track, box]);
  let rungs = [];
  let dragging = false;
  let wrong = false;
  let painted = "";

  const paint = (value) => {
    const place = nearest(rungs, value);
    track.value = place;
    track.style.setProperty("--fill", `${(100 * place) / Math.max(rungs.length - 1, 1)}%`);
    track.setAttribute("aria-valuetext", `${text(value)} ${model.get("unit")}`.trim());
    if (!wrong) box.value = painted = text(value);
    box.style.width = `${Math.max(box.value.length, 3) + 1}ch`;
  };
  const complain = (sentence) => {
    wrong = Boolean(sentence);
    box.setAttribute("aria-invalid", wrong);
    trouble.textContent = sentence || model.get("problem");
  };
  const send = (value) => {
    complain("");
    model.set("value", value);
    model.save_changes(); // the widget base keeps one message in flight, the latest waits
    paint(value);
  };
  const read = () => {
    const label = model.get("label");
    const typed = box.value.trim();
    const value = typed === "" ? NaN : Number(typed);
    const [low, high] = [model.get("low"), model.get("high")];
    const parts = { label, value: typed, low: text(low), high: text(high) };
    if (!Number.isFinite(value)) return complain(worded(model, "number", parts));
    if (value < low || value > high) return complain(worded(model, "range", parts));
    const fraction = model.get("integer") && !Number.isInteger(value);
    if (fraction) return complain(worded(model, "whole", parts));
    return value === model.get("value") ? (complain(""), paint(value)) : send(value);
  };
  const build = () => {
    const { low, high, log, integer, step } = Object.fromEntries(
      ["low", "high", "log", "integer", "step"].map((key) => [key, model.get(key)]));
    rungs = ladder(low, high, { log, integer, step });
    track.max = rungs.length - 1;
    paint(model.get("value"));
  };

  track.addEventListener("input", () => send(rungs[track.valueAsNumber]));
  track.addEventListener("pointerdown", () => (dragging = true));
  for (const name of ["pointerup", "pointercancel", "blur", "change"]) {
    track.addEventListener(name, () => {
      if (dragging) { dragging = false; paint(model.get("value")); }
    });
  }
  box.addEventListener("change", read);
  box.addEventListener("focus", () => box.select());
  box.addEventListener("blur", () => wrong || paint(model.get("value")));
  box.addEventListener("keydown", (event) => {
    if (event.key === "Enter") { read(); box.select(); } // the next number takes its place
    if (event.key === "Escape") { complain(""); paint(model.get("value")); }
    const by = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (by) {
      event.preventDefault();
      const place = nearest(rungs, model.get("value")) + by;
      if (rungs[place] !== undefined) send(rungs[place]);
    }
  });
  follow(model, ["low", "high", "log", "integer", "step"], build);
  follow(model, ["label", "unit", "ends", "disabled"], () => {
    label.textContent = model.get("label");
    box.setAttribute("aria-label", worded(model, "value_of", { label: model.get("label") }));
    unit.textContent = model.get("unit");
    unit.parentNode.classList.toggle("dpk-united", Boolean(model.get("unit")));
    model.get("ends").forEach((end, i) => (ends.children[i].textContent = end));
    ends.hidden = !model.get("ends").some(Boolean);
    track.disabled = box.disabled = model.get("disabled");
    paint(model.get("value"));
  });
  model.on("change:value", () => {
    const typing = document.activeElement === box && box.value !== painted;
    if (dragging || typing) return;
    complain("");
    paint(model.get("value"));
  });
}

// ---- choice, entry, check -----------------------------------------------------------------

function choice(model, el) {
  const id = fresh();
  const label = h("label", { class: "dpk-label", for: id });
  const select = h("select", { class: "dpk-select", id });
  el.append(h("div", { class: "dpk-row" }, label, select));
  describe(model, el, [select]);
  follow(model, ["options"], () => {
    const items = model.get("options").map(([read, value]) => h("option", { value }, read));
    select.replaceChildren(...items);
    select.value = model.get("value");
  });
  follow(model, ["label", "value", "disabled"], () => {
    label.textContent = model.get("label");
    select.value = model.get("value");
    select.disabled = model.get("disabled");
  });
  select.addEventListener("change", () => {
    model.set("value", select.value);
    model.save_changes();
  });
}

function entry(model, el) {
  const id = fresh();
  const label = h("label", { class: "dpk-label", for: id });
  const box = h("input", { class: "dpk-entry", id, ...PLAIN });
  el.append(h("div", { class: "dpk-row" }, label, box));
  describe(model, el, [box]);
  follow(model, ["label", "value", "disabled"], () => {
    label.textContent = model.get("label");
    box.value = model.get("value");
    box.disabled = model.get("disabled");
  });
  const send = () => {
    model.set("value", box.value);
    model.save_changes();
  };
  box.addEventListener("change", send);
  box.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && box.value !== model.get("value")) send();
    if (event.key === "Escape") box.value = model.get("value");
  });
}

function check(model, el) {
  const id = fresh();
  const box = h("input", { class: "dpk-check", type: "checkbox", id });
  const label = h("label", { class: "dpk-label", for: id });
  el.append(h("div", { class: "dpk-row dpk-start" }, box, label));
  describe(model, el, [box]);
  follow(model, ["label", "value", "disabled"], () => {
    label.textContent = model.get("label");
    box.checked = model.get("value");
    box.disabled = model.get("disabled");
  });
  box.addEventListener("change", () => {
    model.set("value", box.checked);
    model.save_changes();
  });
}

// ---- buttons, progress, note --------------------------------------------------------------

function buttons(model, el) {
  const row = h("div", { class: "dpk-buttons", role: "group" });
  el.append(row);
  const known = new Map();
  follow(model, ["actions", "off", "label"], () => {
    if (model.get("label")) row.setAttribute("aria-label", model.get("label"));
    const order = model.get("actions").map(([name, read, kind]) => {
      if (!known.has(name)) {
        const button = h("button", { type: "button" });
        button.addEventListener("click", () => {
          if (button.getAttribute("aria-disabled") !== "true") model.send({ click: name });
        });
        known.set(name, button);
      }
      const button = known.get(name);
      if (button.textContent !== read) button.textContent = read;
      button.className = `dpk-button ${kind ? `dpk-${kind}` : ""}`;
      // not the disabled attribute: it would throw a keyboard user's focus away
      button.setAttribute("aria-disabled", model.get("off").includes(name));
      return button;
    });
    if (order.some((button, i) => row.children[i] !== button)) row.replaceChildren(...order);
  });
}

function progress(model, el) {
  const id = fresh();
  const label = h("label", { class: "dpk-label", for: id });
  const words = h("span", { class: "dpk-unit", "aria-hidden": "true" });
  const bar = h("progress", { class: "dpk-progress", id, max: 1 });
  el.append(h("div", { class: "dpk-row" }, label, words), bar);
  let shown = false;
  follow(model, ["value", "text", "label"], () => {
    const value = model.get("value");
    label.textContent = model.get("label");
    const percent = value === null ? "" : String(Math.round(100 * value));
    words.textContent = model.get("text") || (percent && worded(model, "done", { percent }));
    if (value === null) bar.removeAttribute("value");
    else bar.value = value;
    bar.setAttribute("aria-valuetext", words.textContent);
    if (shown) announce(model, words.textContent);
    shown = true;
  });
  return () => silence(model);
}

function note(model, el) {
  const body = h("div", { class: "dpk-note" });
  el.append(body);
  let shown = false;
  let [wide, tall] = [0, 0];
  // room that words once took stays theirs, or the plots below would jump while a slider moves
  const settle = () => {
    body.style.minHeight = "";
    if (body.clientWidth !== wide || !body.firstChild) tall = 0;
    wide = body.clientWidth;
    tall = Math.max(tall, body.offsetHeight);
    if (model.get("kind") === "plain" && body.firstChild) body.style.minHeight = `${tall}px`;
  };
  follow(model, ["text", "kind", "label"], () => {
    const [content, kind, label] = ["text", "kind", "label"].map((key) => model.get(key));
    body.className = `dpk-note dpk-note-${kind}`;
    // an error interrupts; everything else waits until the controls have come to rest
    if (kind === "error") body.setAttribute("role", "alert");
    else body.removeAttribute("role");
    const lead = label || (kind === "plain" ? "" : worded(model, kind));
    const parts = content.split(/\n\s*\n/).filter(Boolean);
    const blocks = parts.map((part) => h("p", {}, ...inline(part)));
    if (lead && blocks.length) blocks[0].prepend(h("strong", { class: "dpk-lead" }, lead), " ");
    body.replaceChildren(...blocks);
    settle();
    if (shown && kind !== "error") announce(model, body.textContent);
    shown = true;
  });
  const sized = new ResizeObserver(() => body.clientWidth !== wide && settle());
  sized.observe(body);
  return () => (sized.disconnect(), silence(model));
}

function inline(block) {
  return block.split(/(\*\*[^*]+\*\*|`[^`]+`)/).map((piece) => {
    if (piece.startsWith("**") && piece.length > 4) return h("strong", {}, piece.slice(2, -2));
    if (piece.startsWith("`") && piece.length > 2) return h("code", {}, piece.slice(1, -1));
    return piece;
  });
}

function table(model, el) {
  const title = h("caption", { class: "dpk-plot-title" });
  const head = h("thead");
  const body = h("tbody");
  el.classList.add("dpk-table-part");
  el.append(h("table", { class: "dpk-table" }, title, head, body));
  const fit = scrollable(el, () => model.get("label"));
  follow(model, ["label", "columns", "rows"], () => {
    title.textContent = model.get("label");
    head.replaceChildren(h("tr", {}, ...model.get("columns").map((c) => h("th", { scope: "col" }, c))));
    body.replaceChildren(...model.get("rows").map((row) => h("tr", {}, ...row.map(cell))));
    fit();
  });
  return fit.end;
}

function cell(content) {
  if (typeof content === "string") return h("td", {}, content);
  // a swatch: the line by which a plot shows this row
  const line = h("span", { class: "dpk-swatch", "aria-hidden": "true" });
  line.style.borderTop = `3px ${content.dash} ${content.colour}`;
  return h("td", {}, line, content.text);
}

function code(model, el) {
  const text = h("pre", { class: "dpk-code" });
  el.append(text);
  const fit = scrollable(text, () => model.get("label"));
  follow(model, ["text", "label"], () => {
    text.textContent = model.get("text");
    text.hidden = !model.get("text");
    fit();
  });
  return fit.end;
}

const PARTS = { slider, choice, entry, check, buttons, progress, note, code, table };

export default {
  render({ model, el }) {
    const part = model.get("part");
    el.classList.add("dpk", `dpk-${part}-part`);
    const cleanup = PARTS[part](model, el);
    // updates sent while a page was loading never reached it: say what is here
    model.send({ have: Object.fromEntries(model.get("live").map((key) => [key, model.get(key)])) });
    return cleanup;
  },
};
