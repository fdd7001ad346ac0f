// What a reader does to a plot: zoom, read its numbers, save it; one Tab stop beside its title.

const LENS = '<circle cx="7" cy="7" r="5.2"/><path d="M11 11l3 3"/>';
const ICONS = {
  zoom_in: `${LENS}<path d="M7 4.8v4.4M4.8 7h4.4"/>`,
  zoom_out: `${LENS}<path d="M4.8 7h4.4"/>`,
  reset: '<path d="M3 3v4h4M3.5 7A5 5 0 1 1 4 10.5"/>',
  table: '<path d="M2 3h12v10H2zM2 6.5h12M2 9.8h12M6 3v10"/>',
  png: '<path d="M8 2v7M5 6.5L8 9.5l3-3M3 13h10"/>',
  svg: '<path d="M3 12C5 2 8 14 13 4"/><path d="M3 12h.01M13 4h.01" stroke-width="3"/>',
};

function toolbar(view) {
  const acts = {
    zoom_in: () => zoom(view, 0.5), zoom_out: () => zoom(view, 2), reset: () => zoom(view, 0),
    table: () => view.tabulate(), png: () => save(view, "png"), svg: () => save(view, "svg"),
  };
  const made = Object.entries(acts).map(([name, act]) => tool(name, worded(view.model, name), act));
  return roving(h("div", { class: "dpk-tools" }, ...made));
}

function tool(name, label, act) {
  const named = { title: label, "aria-label": label };
  const made = h("button", { type: "button", class: "dpk-tool", "data-tool": name, ...named });
  made.innerHTML = `<svg viewBox="0 0 16 16" aria-hidden="true">${ICONS[name]}</svg>`;
  made.addEventListener("click", act);
  return made;
}

// a button that would do nothing is not there: nothing to zoom in a picture, no rows to list
function useful(view) {
  const off = { table: !view.figure.data.some(rowed) && view.numbers === undefined };
  off.zoom_in = off.zoom_out = off.reset = !zoomable(view.plot).length || !marked(view.figure);
  for (const one of view.tools.children) one.hidden = Boolean(off[one.dataset.tool]);
  view.tools.rest();
}

function zoomable(plot) {
  const full = plot._fullLayout ?? {};
  const drawn = [...(full._subplots?.xaxis ?? []), ...(full._subplots?.yaxis ?? [])];
  return drawn.map((id) => id.replace(/^./, "$&axis"))
    .filter((key) => full[key]?.visible && full[key].range && !full[key].fixedrange);
}

function zoom(view, factor) {
  // ranges are kept here, not in the plot, so that the next update does not undo them
  const full = view.plot._fullLayout ?? {};
  view.fresh += 1;
  view.held = {};
  for (const key of factor ? zoomable(view.plot) : []) {
    const [low, high] = full[key].range.map((end) => full[key].r2l(end));
    const middle = (low + high) / 2;
    const half = ((high - low) / 2) * factor;
    view.held[key] = { range: [middle - half, middle + half].map((end) => full[key].l2r(end)) };
  }
  ask(view);
}

function save(view, format) {
  if (!view.library) return;
  const text = view.model.get("title");
  const filename = text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-") || "plot";
  const size = { width: Math.max(640, view.width), height: view.model.get("height") + 80 };
  const layout = merged(view.plot.layout, {
    ...size,
    paper_bgcolor: theme(view.el).surface,
    showlegend: view.legend.childElementCount > 0,
    legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom" },
    title: { text, x: 0.02, font: { size: 15 } },
    margin: { t: 64 },
  });
  const options = { ...size, format, filename, scale: format === "png" ? 2 : 1 };
  view.library
    .downloadImage({ data: view.plot.data, layout, config: CONFIG }, options)
    .catch((error) => view.failed(error));
}
