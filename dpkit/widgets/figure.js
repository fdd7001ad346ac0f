// From the figure that was sent to the figure that is drawn: theme, rings, legend entries.

// ---- the theme under the caller's layout ---------------------------------------------------

function merged(under, over, name) {
  const plain = (x) => x && typeof x === "object" && Object.getPrototypeOf(x) === Object.prototype;
  if (!plain(under) || !plain(over)) {
    const kept = over === undefined ? under : over;
    return name === "range" && kept ? [...kept] : kept; // plotly writes into it
  }
  const out = { ...under };
  for (const key of Object.keys(over)) out[key] = merged(under[key], over[key], key);
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
    modebar: { remove: "sendChartToCloud" }, // a new list would let plotly begin from nothing
  };
  const empty = !marked(figure); // its axes would end at numbers that nobody chose
  for (const key of ["xaxis", "yaxis", ...Object.keys(figure.layout)]) {
    if (!/^[xy]axis\d*$/.test(key)) continue;
    // pictures have no ticks, and a lone corner of a frame would be left
    under[key] = figure.layout[key]?.showticklabels === false ? { ...axis, showline: false } : { ...axis };
    if (empty && !figure.layout[key]?.range) under[key].visible = false;
  }
  const ours = { width, height, autosize: false, showlegend: false };
  const layout = { ...merged(under, figure.layout), ...ours };
  // black ink of the Okabe-Ito set would vanish on a dark page
  return look.dark
    ? { data: lit(figure.data, look.ink), layout: lit(layout, look.ink) }
    : { data: figure.data, layout };
}

function bright(colour, ink) {
  return /^(#000|#000000|black)$/i.test(colour) ? ink : colour;
}

function lit(value, ink, key = "") {
  if (typeof value === "string") return /color$/.test(key) ? bright(value, ink) : value;
  if (Array.isArray(value)) {
    return value.some((v) => v && typeof v === "object") ? value.map((v) => lit(v, ink)) : value;
  }
  if (!value || Object.getPrototypeOf(value) !== Object.prototype) return value;
  return Object.fromEntries(Object.entries(value).map(([k, item]) => [k, lit(item, ink, k)]));
}

// dots of a trace whose meta is "marks" lie over the plot as rings of fixed size: when they move,
// what they lie over is not drawn again
function ringed({ data, layout }) {
  const rings = data.filter(ringlike);
  if (!rings.length) return { data, layout };
  const shapes = rings.filter((t) => t.visible !== false).flatMap(({ x, y, marker }) =>
    Array.from(x, (at, i) => [at, y[i]]).filter((at) => at.every(Number.isFinite))
      .map(([at, height]) => ring(at, height, marker)));
  const rest = data.filter((t) => !ringlike(t));
  return { data: rest, layout: { ...layout, shapes: [...(layout.shapes ?? []), ...shapes] } };
}

// all else stays dots
function ringlike({ meta, x, y, marker, xaxis, yaxis }) {
  return meta === "marks" && x && y && x.length === y.length && !xaxis && !yaxis
    && typeof marker?.size === "number" && typeof marker.color === "string";
}

// four arcs: of plotly's own circle a log axis cuts off what is left of its middle
function ring(x, y, { size, color, line }) {
  const r = size / 2;
  const k = 0.5523 * r;
  const path = `M${r},0C${r},${k},${k},${r},0,${r}C${-k},${r},${-r},${k},${-r},0`
    + `C${-r},${-k},${-k},${-r},0,${-r}C${k},${-r},${r},${-k},${r},0Z`;
  const placed = { xsizemode: "pixel", ysizemode: "pixel", xanchor: x, yanchor: y };
  return { type: "path", path, ...placed, line: { color, width: line?.width ?? 2 } };
}

// nothing to see and nothing said: axes alone
function bare(figure) {
  return !marked(figure) && !figure.layout.annotations?.length;
}

function marked({ data, layout }) {
  const some = (x) => (x?.length ?? 0) > 0;
  const named = ["x", "y", "z", "values", "dimensions", "labels", "source"];
  return data.some((t) => named.some((key) => some(t[key]))) || some(layout.images);
}

// ---- words that find no room: told by where they came to stand, broken into lines ----------

const APART_PX = 6;

function wrapped(text, share) {
  const longest = Math.max(...text.trim().split("<br>").map((line) => plain(line).length));
  const most = Math.max(6, Math.floor(longest * share) - 1);
  const lead = text.match(/^ */)[0]; // keeps the words off the dot that they stand beside
  const lines = [""];
  for (const word of text.trim().split(/ |<br>/)) {
    const line = lines.at(-1);
    if (line && plain(line).length + 1 + plain(word).length > most) lines.push(word);
    else lines[lines.length - 1] = line ? `${line} ${word}` : word;
  }
  return lines.map((line) => lead + line).join("<br>");
}

// the share of its width that it may have and the way back into the picture, for each note and
// title that sticks out or runs into another
function crowded(plot) {
  const rim = plot.getBoundingClientRect();
  const rooms = {};
  const notes = [...plot.querySelectorAll(".annotation")].map((el) => {
    const box = el.getBoundingClientRect();
    return { el, box, middle: (box.left + box.right) / 2 };
  });
  for (const { el, box, middle } of notes) {
    const out = Math.max(box.right - rim.right, rim.left - box.left, 0);
    let room = out > 1 ? box.width - out - APART_PX : Infinity;
    for (const other of notes) {
      const level = Math.min(box.bottom, other.box.bottom) - Math.max(box.top, other.box.top) > 2;
      const apart = Math.abs(other.middle - middle);
      const touch = (box.width + other.box.width) / 2 > apart - 2;
      if (other.el !== el && level && touch && apart > 20) room = Math.min(room, apart - APART_PX);
    }
    const back = box.right > rim.right ? -out - 1 : out + 1;
    const shift = out > 1 && room === box.width - out - APART_PX ? back : 0;
    if (room < box.width) rooms[el.dataset.index] = { share: room / box.width, shift };
  }
  for (const title of plot.querySelectorAll(".xtitle")) {
    const box = title.getBoundingClientRect();
    const middle = (box.left + box.right) / 2;
    const room = 2 * Math.min(middle - rim.left, rim.right - middle) - APART_PX;
    if (room < box.width - 1) rooms.xaxis = room / box.width;
  }
  return rooms;
}

function broken(layout, rooms) {
  const out = { ...layout };
  const above = (note) => note.yref === "paper" && note.y >= 1;
  out.annotations = layout.annotations?.map((note, i) => {
    const { share, shift } = rooms[i] ?? {};
    if (!share) return note;
    // over the axes nothing is in the way of a note that moves in
    if (shift && above(note)) return { ...note, xshift: (note.xshift ?? 0) + shift };
    return { ...note, text: wrapped(note.text, share) };
  });
  // a note above the axes needs room for its further lines
  const lines = (note, i) => (rooms[i] && above(note) ? note.text.split("<br>").length - 1 : 0);
  const more = 16 * Math.max(0, ...(out.annotations ?? []).map(lines));
  if (more) out.margin = { ...layout.margin, t: (layout.margin?.t ?? 8) + more };
  const title = layout.xaxis?.title;
  if (rooms.xaxis && title?.text) {
    out.xaxis = { ...layout.xaxis, title: { ...title, text: wrapped(title.text, rooms.xaxis) } };
  }
  return out;
}

// ---- the numbers of a figure as rows, for readers of tables --------------------------------

const MOST_ROWS = 400;

// whether a trace has numbers that rows can hold
function rowed({ visible, z, x, y }) {
  return visible !== false && !z && ((x ?? y)?.length ?? 0) > 0;
}

function listed({ data, layout }) {
  const head = (axis, other) => layout[axis]?.title?.text || other;
  const rows = [];
  const each = Math.ceil(data.reduce((sum, t) => sum + (t.x ?? t.y ?? []).length, 0) / MOST_ROWS);
  for (const trace of data) {
    if (!rowed(trace)) continue;
    const length = (trace.x ?? trace.y).length;
    for (let i = 0; i < length; i += each) {
      const [x, y] = [trace.x?.[i] ?? i, trace.y?.[i] ?? ""];
      if (y !== null && x !== null) rows.push([trace.name ?? "", brief(x), brief(y)]);
    }
  }
  const named = rows.some(([name]) => name);
  const heads = ["", head("xaxis", "x"), head("yaxis", "y")].slice(named ? 0 : 1);
  return { heads, rows: named ? rows : rows.map((row) => row.slice(1)) };
}

function brief(value) {
  return typeof value === "number" ? String(Number(value.toPrecision(5))) : String(value);
}

function plain(markup) {
  return String(markup).replace(/<br>/g, " ").replace(/<[^>]*>/g, "");
}

function tabled(figure, label) {
  const named = { tabindex: 0, role: "region", "aria-label": label };
  return h("div", { class: "dpk-numbers", ...named }, listing(figure));
}

function listing(figure) {
  const { heads, rows } = listed(figure);
  const th = (text) => h("th", { scope: "col" }, plain(text));
  const line = (cells) => h("tr", {}, ...cells.map((cell) => h("td", {}, plain(cell))));
  return h("table", { class: "dpk-table" }, h("thead", {}, h("tr", {}, ...heads.map(th))),
    h("tbody", {}, ...rows.map(line)));
}

// ---- the legend: native toggles above the plot, which wrap and can be reached by keyboard ---

const DASHES = { dash: "6 4", dot: "2 3", dashdot: "6 3 2 3", longdash: "10 4" };

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
  const symbol = SWATCHES[one(trace.marker?.symbol)] ? trace.marker.symbol : "circle";
  const drawn = mode.includes("lines") ? "line" : mode.includes("markers") ? symbol : "block";
  return { key, name: trace.name, colour, drawn, dash: DASHES[trace.line?.dash] ?? "" };
}

function filled(points) {
  return `<polygon points="${points}" fill="currentColor"/>`;
}

const SWATCHES = {
  line: '<path d="M1 5h20" fill="none" stroke="currentColor" stroke-width="2"/>',
  circle: '<circle cx="11" cy="5" r="4" fill="currentColor"/>',
  "circle-open": '<circle cx="11" cy="5" r="3.6" fill="none" stroke="currentColor" stroke-width="1.8"/>',
  diamond: filled("11,0 15.5,5 11,10 6.5,5"),
  square: filled("7.2,1.2 14.8,1.2 14.8,8.8 7.2,8.8"),
  "triangle-up": filled("11,.5 15.8,9 6.2,9"),
  "triangle-left": filled("6.4,5 14.9,.2 14.9,9.8"),
  cross: filled("9.5,.5 12.5,.5 12.5,3.5 15.5,3.5 15.5,6.5 12.5,6.5 12.5,9.5 9.5,9.5 9.5,6.5 6.5,6.5 6.5,3.5 9.5,3.5"),
  x: '<path d="M7.5 1.5l7 7M14.5 1.5l-7 7" stroke="currentColor" stroke-width="2.8"/>',
  "x-thin": '<path d="M7.5 1.5l7 7M14.5 1.5l-7 7" stroke="currentColor" stroke-width="1.6"/>',
  star: filled("11,0 12.3,3.5 16,3.6 13.1,5.9 14.1,9.5 11,7.4 7.9,9.5 8.9,5.9 6,3.6 9.7,3.5"),
  hexagon: filled("11,0 15.3,2.5 15.3,7.5 11,10 6.7,7.5 6.7,2.5"),
  bowtie: filled("6,1 11,5 16,1 16,9 11,5 6,9"),
  pentagon: filled("11,.3 15.8,3.8 14,9.4 8,9.4 6.2,3.8"),
  block: '<rect x="5" width="12" height="10" rx="2" fill="currentColor"/>',
};
