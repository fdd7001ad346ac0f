// What all plots of a page share: one plotly.js, and one queue of what is to be drawn.

const PAGE = (globalThis[Symbol.for("dpkit.plots.2")] ??= {
  plotly: {}, queue: [], frame: 0, timer: 0, rest: 0,
});
const STILL_MS = 300; // a plot that was not drawn for so long is not part of a stream

// ---- plotly.js: once for each page --------------------------------------------------------

function once(key, make) {
  PAGE.plotly[key] ??= make().catch((error) => {
    delete PAGE.plotly[key];
    throw error;
  });
  return PAGE.plotly[key];
}

function plotly(model) {
  const id = model.get("bundle").replace("IPY_MODEL_", "");
  return once(id, async () => {
    const bundle = await arrived(model.widget_manager, id);
    return once(bundle.get("version"), () => evaluated(bundle.get("gz")));
  });
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
  const start = performance.now();
  const view = next();
  if (!view) return;
  // a stream may use half of the time; what was still for a while is drawn at once
  if (start < PAGE.rest && start - view.last < STILL_MS) {
    PAGE.queue.push(view);
    PAGE.timer ||= setTimeout(() => {
      PAGE.timer = 0;
      PAGE.frame ||= requestAnimationFrame(frame);
    }, PAGE.rest - start);
    return;
  }
  view.waiting = false;
  view.draw();
  view.last = performance.now();
  PAGE.rest = view.last + (view.last - start);
  if (PAGE.queue.length) PAGE.frame ||= requestAnimationFrame(frame);
}

// what can be seen comes first, then what was drawn least recently: what a person turns comes
// before what streams; what was still for a while comes in the order in which it was asked for
function next() {
  const still = performance.now() - STILL_MS;
  const ranks = PAGE.queue.map((view) => [view.hidden(), Math.max(view.last, still)]);
  let best = 0;
  ranks.forEach(([hidden, last], i) => {
    const [least, oldest] = ranks[best];
    if (hidden < least || (hidden === least && last < oldest)) best = i;
  });
  return PAGE.queue.splice(best, 1)[0];
}
