// Puts the parts of a board in their places; every part is a plain model that needs no script.

// listeners of a view that is gone must not keep it alive
function scoped(model, undo) {
  return {
    widget_manager: model.widget_manager,
    get: (key) => model.get(key),
    set: (key, value) => model.set(key, value),
    save_changes: () => model.save_changes(),
    send: (content) => model.send(content),
    on: (name, act) => {
      model.on(name, act);
      undo.push(() => model.off(name, act));
    },
    off: (name, act) => model.off(name, act),
  };
}

async function fill(board, reference, el, undo) {
  const id = reference.replace("IPY_MODEL_", "");
  try {
    const model = scoped(await arrived(board.widget_manager, id), undo);
    if (undo.gone) return;
    const seen = () => (el.hidden = !model.get("shown"));
    model.on("change:shown", seen);
    seen();
    const renderer = model.get("part") === "plot" ? PLOT : CONTROLS;
    const cleanup = renderer.render({ model, el });
    if (cleanup) undo.push(cleanup);
  } catch (error) {
    el.textContent = String(error);
    el.setAttribute("role", "alert");
    console.error(error);
  }
}

function plant(board, node, into, undo) {
  if (typeof node === "number") {
    const el = h("div", { class: "dpk" });
    into.append(el);
    fill(board, board.get("parts")[node], el, undo);
    return;
  }
  const box = h("div", { class: `dpk-box ${node.name}` });
  into.append(box);
  for (const child of node.children) plant(board, child, box, undo);
}

export default {
  render({ model, el }) {
    const undo = [held(el)];
    el.classList.add("dpk-board");
    plant(model, model.get("tree"), el, undo);
    return () => {
      undo.gone = true;
      for (const act of undo) act();
    };
  },
};
