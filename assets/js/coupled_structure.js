// The drawing of a coupled structure, made in Python. Boxes are buttons: two of them show what couples them.

let pair = [];
const ask = later(() => trigger("pair", {first: pair[0] || "", second: pair[1] || ""}), 60);

function boxes() { return [...element.querySelectorAll("g[data-parameter]")]; }

function pick(box) {
  const name = box.dataset.parameter;
  pair = pair.includes(name) ? pair.filter((one) => one !== name) : [...pair, name].slice(-2);
  for (const one of boxes()) one.setAttribute("aria-pressed", String(pair.includes(one.dataset.parameter)));
  ask();
}

// Arrow keys go to the nearest box that way.
function move(event) {
  const step = arrow(event), from = event.target.closest("g[data-parameter]");
  if (!from) return;
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(from); }
  if (!step.some(Boolean)) return;
  event.preventDefault();
  const centre = (one) => { const box = one.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; };
  const next = nearest(boxes().map((one) => [one, ...centre(one)]), centre(from), step);
  if (!next) return;
  for (const one of boxes()) one.setAttribute("tabindex", one === next ? 0 : -1);
  next.focus();
}

element.addEventListener("keydown", move);
element.addEventListener("click", (event) => {
  const box = event.target.closest("g[data-parameter]"), button = event.target.closest("button[data-save]");
  if (box) pick(box);
  if (button) saveDrawing(dressed(element.querySelector("svg")), button.dataset.name, button.dataset.save);
});
// A new drawing says itself which boxes were asked for.
watch("value", () => { pair = boxes().filter((one) => one.getAttribute("aria-pressed") === "true").map((one) => one.dataset.parameter); });
