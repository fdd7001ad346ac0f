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
  };
  window.addEventListener("keydown", ours, true);
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
