// Layers down, kinds across: one button per cell. A kind that spans all layers is one tall cell.

let data = null;
const table = make("table", {class: "pv-map"});
element.replaceChildren(make("div", {class: "pv-mapbox"}, table), make("button", {type: "button", "data-save": "csv", class: "pv-save", onclick: save}, "Download as CSV"));

function save() {
  const rows = data.cells.map((cell) => [cell.kind, cell.layer ?? "all", cell.units, cell.params, chosenIn(cell)]);
  const lines = [["kind", "layer", "units", "parameters", "chosen"], ...rows].map((row) => row.join(",") + "\n");
  download(new Blob(lines, {type: "text/csv"}), "structure.csv");
}

// Holding an arrow key down asks for the last cell only.
const send = later((group) => trigger("pick", {group, unit: 0}), 120);

function words(cell) {
  const where = cell.layer === null ? "all layers" : "layer " + cell.layer;
  return cell.title + ", " + where + ": " + count(cell.units, "unit") + ", " + count(cell.params, "parameter") + (cell.reason ? "; not prunable: " + cell.reason : "") + (chosenIn(cell) ? "; " + chosenIn(cell).toLocaleString("en-US") + " chosen" : "");
}

function chosenIn(cell) { return data.chosen[cell.group] || 0; }

function button(cell) {
  const share = Math.sqrt(cell.params / data.most), units = cell.units.toLocaleString("en-US");
  const below = chosenIn(cell) ? "−" + chosenIn(cell).toLocaleString("en-US") : cell.size;
  return make("button", {
    type: "button", class: "pv-cell" + (cell.prunable ? "" : " fixed"), "data-group": cell.group, title: words(cell), "aria-label": units + " " + below + ": " + words(cell),
    "aria-pressed": String(cell.group === data.selected), tabindex: cell.group === (data.selected || data.cells[0].group) ? 0 : -1, onclick: () => pick(cell.group),
  }, make("b", {}, units), " ", make("small", {class: chosenIn(cell) ? "chosen" : ""}, below), make("i", {style: "width:" + 100 * share + "%;--own:var(--pv-" + cell.colour + ")"}));
}

function pick(group) {
  data.selected = group;
  for (const one of table.querySelectorAll("button")) {
    one.setAttribute("aria-pressed", String(one.dataset.group === group));
    one.tabIndex = one.dataset.group === group ? 0 : -1;
  }
  send(group);
}

function build() {
  const focused = table.contains(document.activeElement) ? document.activeElement.dataset.group : null;
  const spanning = data.cells.filter((cell) => cell.layer === null), local = data.kinds.filter((kind) => !spanning.some((cell) => cell.kind === kind.kind));
  const head = make("tr", {}, make("th", {scope: "col"}, "Layer"), [...local, ...data.kinds.filter((kind) => !local.includes(kind))].map((kind) =>
    make("th", {scope: "col", title: kind.note}, kind.title, make("small", {}, kind.note))));
  const rows = data.layers.map((layer, index) => make("tr", {}, make("th", {scope: "row"}, String(layer)),
    local.map((kind) => make("td", {}, data.cells.filter((cell) => cell.kind === kind.kind && cell.layer === layer).map(button))),
    index ? [] : spanning.map((cell) => make("td", {rowspan: data.layers.length, class: "tall"}, button(cell)))));
  table.replaceChildren(make("thead", {}, head), make("tbody", {}, rows));
  if (focused) table.querySelector('button[data-group="' + focused + '"]')?.focus({preventScroll: true});
}

table.addEventListener("keydown", move);

// Arrow keys go to the nearest cell that way, whatever the columns look like.
function move(event) {
  const step = arrow(event), from = event.target.closest("button.pv-cell");
  if (!from || !step.some(Boolean)) return;
  event.preventDefault();
  const centre = (one) => { const box = one.getBoundingClientRect(); return [box.x + box.width / 2, Math.max(box.y, Math.min(box.bottom, centreY(from, one, step[0])))]; };
  const others = [...table.querySelectorAll("button.pv-cell")].filter((one) => one !== from).map((one) => [one, ...centre(one)]);
  const next = nearest(others, centre(from), step);
  if (next) { next.focus(); pick(next.dataset.group); }
}

function centreY(from, one, dx) {
  const own = from.getBoundingClientRect(), box = one.getBoundingClientRect();
  return dx && box.height > 2 * own.height ? own.y + own.height / 2 : box.y + box.height / 2;
}

// Scroll inside the box only; the page stays where it is.
function reveal() {
  const box = element.querySelector(".pv-mapbox"), chosen = table.querySelector('button[aria-pressed="true"]');
  if (!chosen) return;
  const row = chosen.closest("tr"), at = row.offsetTop;
  if (at < box.scrollTop + 40 || at + row.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = at - box.clientHeight / 2;
}

onValue((value) => {
  const moved = !data || data.selected !== value.selected;
  data = value;
  build();
  if (moved) reveal();
});
