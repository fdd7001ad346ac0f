// Measures one panel: which boxes overlap, which text is cut off or faint, which plot has no marks.
window.dpkitLayout = (root) => {
  const faults = [];
  const SLACK = 3; // px: a shadow or a rounded edge
  const seen = (el) => {
    const css = getComputedStyle(el);
    const box = el.getBoundingClientRect();
    return css.visibility !== "hidden" && css.opacity !== "0" && css.display !== "none" && box.width > 0 && box.height > 0
      && !el.closest(".dpk-hidden, [hidden], .dpk-tools, .jp-OutputPrompt");
  };
  const name = (el) => {
    const said = (el.textContent || el.value || el.getAttribute("aria-label") || "").trim();
    const kind = el.getAttribute("class") || el.tagName.toLowerCase();
    const title = el.closest("[data-title]")?.dataset.title;
    return `${kind} “${said.slice(0, 50)}”${title ? ` in “${title.slice(0, 40)}”` : ""}`;
  };
  const own = (el) => [...el.childNodes].filter((n) => n.nodeType === 3 && n.data.trim());

  const ground = (el) => {
    for (let at = el; at; at = at.parentElement) {
      const found = getComputedStyle(at).backgroundColor;
      if (!/rgba\(.*, 0\)|transparent/.test(found)) return found;
    }
    return "rgb(255, 255, 255)";
  };
  const rgb = (colour) => (colour.match(/[\d.]+/g) ?? [0, 0, 0]).slice(0, 3).map(Number);
  const light = (colour) => {
    const [r, g, b] = rgb(colour).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (ink, paper) => (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);

  // ---- boxes: form elements, and lines of text where they are painted --------------------
  const items = [];
  for (const el of root.querySelectorAll("*")) {
    if (!seen(el)) continue;
    const svg = el.closest("svg");
    if (svg) {
      if (el.matches("text") && el.textContent.trim() && svg.closest(".dpk-figure")) {
        items.push({ el, boxes: [el.getBoundingClientRect()], svg });
      }
    } else if (el.matches("input, select, button, progress")) {
      const box = el.getBoundingClientRect();
      const bare = el.matches("[type=range]") ? 4 : 0; // room to grip, where nothing is painted
      items.push({ el, boxes: [new DOMRect(box.x, box.y + bare, box.width, box.height - 2 * bare)] });
    } else if (!el.matches("option, style, script") && !el.closest("select, button")) {
      for (const node of own(el)) {
        const range = document.createRange();
        range.selectNodeContents(node);
        items.push({ el, boxes: [...range.getClientRects()] });
      }
    }
  }
  const far = (a, b) => a.el === b.el || a.el.contains(b.el) || b.el.contains(a.el);
  const cross = (p, q) => Math.min(
    Math.min(p.right, q.right) - Math.max(p.left, q.left),
    Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top));
  for (let i = 0; i < items.length; i += 1) {
    for (let j = i + 1; j < items.length; j += 1) {
      const [a, b] = [items[i], items[j]];
      if (far(a, b)) continue;
      // lines of text may lean on each other a little: their boxes have room above and below
      const slack = a.svg && b.svg ? 4 : SLACK;
      const deep = Math.max(...a.boxes.flatMap((p) => b.boxes.map((q) => cross(p, q))));
      if (deep > slack) faults.push(["overlap", `${name(a.el)} and ${name(b.el)} by ${deep.toFixed(0)} px`]);
    }
  }

  // ---- clipping: by the element itself, by a box around it, by the panel -------------------
  const frame = root.getBoundingClientRect();
  const pen = document.createElement("canvas").getContext("2d");
  for (const { el, boxes, svg } of items) {
    // a line of free text scrolls under its cursor
    if (!svg && el.clientWidth && !el.matches(".dpk-entry") && el.scrollWidth > el.clientWidth + 1) {
      faults.push(["clipped", `${name(el)}: ${el.scrollWidth} px in ${el.clientWidth}`]);
    }
    // axe leaves it open where it cannot tell what is behind a text
    const off = el.disabled || el.getAttribute("aria-disabled") === "true";
    if (!svg && !off && !el.matches("[type=range], [type=checkbox], progress")) {
      const ratio = contrast(light(getComputedStyle(el).color), light(ground(el)));
      if (ratio < 4.5) faults.push(["faint", `${name(el)}: contrast ${ratio.toFixed(1)}`]);
    }
    if (el.matches("select")) {
      const css = getComputedStyle(el);
      pen.font = `${css.fontWeight} ${css.fontSize} ${css.fontFamily}`;
      const wide = pen.measureText(el.selectedOptions[0]?.textContent ?? "").width;
      const room = el.clientWidth - parseFloat(css.paddingLeft) - 18;
      if (wide > room) faults.push(["clipped", `choice “${el.selectedOptions[0].textContent}”: ${wide.toFixed(0)} px in ${room.toFixed(0)}`]);
    }
    for (let box = el.parentElement; box && root.contains(box); box = box.parentElement) {
      const css = getComputedStyle(box);
      if (/auto|scroll/.test(css.overflowX)) break; // it can be scrolled to
      if (!/hidden|clip/.test(css.overflow) && box !== root && !(box.matches("svg") && svg)) continue;
      const rim = box.getBoundingClientRect();
      const out = Math.max(...boxes.map((b) => Math.max(
        rim.left - b.left, b.right - rim.right, box === root ? 0 : b.bottom - rim.bottom,
        box === root ? 0 : rim.top - b.top)));
      if (out > 3) {
        faults.push(["cut off", `${name(el)} stands ${out.toFixed(0)} px out of ${box === root ? "the panel" : box.getAttribute("class")}`]);
        break;
      }
    }
  }
  if (root.scrollWidth > root.clientWidth + 1) {
    faults.push(["too wide", `the panel has ${root.scrollWidth} px in ${root.clientWidth}`]);
  }

  // ---- words that are broken in their midst; choices of a column that begin at unlike places ---
  for (const el of root.querySelectorAll("*")) {
    if (!seen(el) || el.closest("svg, pre, select, code")) continue;
    for (const node of own(el)) {
      for (const { 0: word, index } of node.data.matchAll(/[\p{Script=Latin}\d]{2,}/gu)) {
        const range = document.createRange();
        range.setStart(node, index);
        range.setEnd(node, index + word.length);
        const lines = new Set([...range.getClientRects()].map((box) => Math.round(box.top)));
        if (lines.size > 1) faults.push(["broken word", `“${word}” in ${name(el)}`]);
      }
    }
  }
  const columns = new Map();
  for (const field of root.querySelectorAll(".dpk-row > :is(select, .dpk-entry)")) {
    if (!seen(field)) continue;
    const [label, row] = [field.previousElementSibling, field.parentElement].map((one) => one.getBoundingClientRect());
    const box = field.getBoundingClientRect();
    if (box.top >= label.bottom) continue; // under its label
    const column = `${[...document.querySelectorAll(".dpk-box")].indexOf(field.closest(".dpk-box"))} ${Math.round(row.left)}`;
    columns.set(column, [...(columns.get(column) ?? []), [box.left - row.left, field]]);
  }
  for (const fields of columns.values()) {
    const [first, last] = [Math.min, Math.max].map((most) => most(...fields.map(([left]) => left)));
    if (last - first > 3) faults.push(["ragged", `${fields.map(([left, el]) => `${el.labels[0].textContent} at ${left.toFixed(0)}`).join(", ")} px`]);
  }

  // ---- plots: drawn, with marks or a sentence, and text that can be read ---------------------
  const MARKS = ".js-line, .point, .points path, .fills path, .heatmaplayer image, .imagelayer image,"
    + " .im image, .shapelayer path, .contourlayer path, .errorbar path, .js-fill, .barlayer path,"
    + " canvas";
  for (const plain of root.querySelectorAll(".js-plotly-plot")) {
    if (!plain.closest(".dpk-plot")) faults.push(["bare plotly", "a figure that follows no theme and tells nothing"]);
  }
  for (const plot of root.querySelectorAll(".dpk-plot")) {
    if (!seen(plot)) continue;
    const title = plot.dataset.title;
    if (!(Number(plot.dataset.drawn) >= 0)) faults.push(["blank plot", `${title}: never drawn`]);
    const marks = [...plot.querySelectorAll(MARKS)].filter((m) => {
      const box = m.getBoundingClientRect();
      return box.width + box.height > 1;
    });
    const note = plot.querySelector(".dpk-wait:not([hidden])");
    const told = plot.querySelector(".annotation-text") || note?.textContent.trim();
    if (marks.length && note?.textContent.trim()) faults.push(["words over a picture", `${title}: “${note.textContent.trim()}” lies over it`]);
    if (!marks.length && !told) faults.push(["blank plot", `${title}: no mark and no sentence`]);
    const full = plot.querySelector(".js-plotly-plot")?._fullLayout ?? {};
    for (const key of Object.keys(full).filter((one) => /^[xy]axis\d*$/.test(one))) {
      const { visible, showline, showticklabels } = full[key];
      if (visible && showline && !showticklabels) faults.push(["stray line", `${title}: the ${key} has no numbers and a line`]);
    }
    // a key whose mark has no sign of its own falls back to a dot: colour alone tells them apart
    const traces = plot.querySelector(".js-plotly-plot")?.data ?? [];
    for (const key of plot.querySelectorAll(".dpk-key")) {
      const symbol = traces.find((t) => t.name === key.textContent && t.mode === "markers")?.marker?.symbol;
      const dot = key.querySelector("circle[fill=currentColor]");
      if (dot && typeof symbol === "string" && symbol !== "circle") faults.push(["unlike", `the key “${key.textContent}” of ${title} is a dot, its mark ${symbol}`]);
    }
    const paper = light(ground(plot));
    for (const text of plot.querySelectorAll(".dpk-figure text")) {
      if (!text.textContent.trim() || !seen(text) || text.closest(".annotation-text-g")?.querySelector("rect.bg[style*='fill-opacity: 1']")) continue;
      const css = getComputedStyle(text);
      const ink = light(css.fill);
      const ratio = contrast(ink, paper);
      if (ratio < 4.5 && !text.closest(".barlayer, .textpoint, .heatmaplayer")) {
        faults.push(["faint", `${name(text)}: contrast ${ratio.toFixed(1)} (${css.fill})`]);
      }
      if (parseFloat(css.fontSize) < 10) faults.push(["small", `${name(text)}: ${css.fontSize}`]);
    }
    const image = plot.querySelector(".dpk-figure");
    const said = image?.getAttribute("aria-label") ?? "";
    if (said.length < title.length + 3) faults.push(["untold", `${title}: no words say what it shows`]);
  }
  return faults;
};
