// From the figure that was sent to the figure that is drawn: bytes, theme, legend entries.

const ARRAYS = {
  f4: Float32Array, f8: Float64Array, i1: Int8Array, i2: Int16Array, i4: Int32Array,
  u1: Uint8Array, u2: Uint16Array, u4: Uint32Array,
};

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
  const drawn = mode.includes("lines") ? "line" : mode.includes("markers") ? "dot" : "block";
  return { key, name: trace.name, colour, drawn, dash: DASHES[trace.line?.dash] ?? "" };
}

const SWATCHES = {
  line: '<path d="M1 5h20" fill="none" stroke="currentColor" stroke-width="2"/>',
  dot: '<circle cx="11" cy="5" r="4" fill="currentColor"/>',
  block: '<rect x="5" width="12" height="10" rx="2" fill="currentColor"/>',
};
