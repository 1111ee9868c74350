// Layers down, kinds across: one button per cell. A kind that spans all layers is one tall cell.

let data = null;
const table = make("table", {class: "pv-map"});
element.replaceChildren(make("div", {class: "pv-mapbox"}, table));

// Holding an arrow key down asks for the last cell only.
const send = later((group) => trigger("pick", {group, unit: 0}), 120);

function words(cell) {
  const where = cell.layer === null ? "all layers" : "layer " + cell.layer;
  return cell.title + ", " + where + ": " + count(cell.units, "unit") + ", " + count(cell.params, "parameter") + (cell.reason ? "; not prunable: " + cell.reason : "");
}

function button(cell) {
  const share = Math.sqrt(cell.params / data.most);
  return make("button", {
    type: "button", class: "pv-cell" + (cell.prunable ? "" : " fixed"), "data-group": cell.group, title: words(cell), "aria-label": words(cell),
    "aria-pressed": String(cell.group === data.selected), tabindex: cell.group === data.selected ? 0 : -1, onclick: () => pick(cell.group),
  }, make("b", {}, cell.units.toLocaleString("en-US")), make("small", {}, cell.size), make("i", {style: "width:" + 100 * share + "%;--own:var(--pv-" + cell.colour + ")"}));
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
  const spanning = data.cells.filter((cell) => cell.layer === null), local = data.kinds.filter((kind) => !spanning.some((cell) => cell.kind === kind.kind));
  const head = make("tr", {}, make("th", {scope: "col"}, "Layer"), [...local, ...data.kinds.filter((kind) => !local.includes(kind))].map((kind) =>
    make("th", {scope: "col", title: kind.note}, kind.title, make("small", {}, kind.note))));
  const rows = data.layers.map((layer, index) => make("tr", {}, make("th", {scope: "row"}, String(layer)),
    local.map((kind) => make("td", {}, data.cells.filter((cell) => cell.kind === kind.kind && cell.layer === layer).map(button))),
    index ? [] : spanning.map((cell) => make("td", {rowspan: data.layers.length, class: "tall"}, button(cell)))));
  table.replaceChildren(make("thead", {}, head), make("tbody", {}, rows));
  table.addEventListener("keydown", move);
  reveal();
}

// Arrow keys go to the nearest cell that way, whatever the columns look like.
function move(event) {
  const [dx, dy] = {ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1]}[event.key] || [0, 0];
  const from = event.target.closest("button.pv-cell");
  if (!from || !(dx || dy)) return;
  event.preventDefault();
  const centre = (one) => { const box = one.getBoundingClientRect(); return [box.x + box.width / 2, Math.max(box.y, Math.min(box.bottom, centreY(from, one, dx)))]; };
  const [x, y] = centre(from);
  const ahead = [...table.querySelectorAll("button.pv-cell")].map((one) => [one, ...centre(one)])
    .filter(([one, ox, oy]) => one !== from && (dx ? (ox - x) * dx > 4 : (oy - y) * dy > 4));
  ahead.sort((a, b) => score(a, x, y, dx) - score(b, x, y, dx));
  if (ahead.length) { ahead[0][0].focus(); pick(ahead[0][0].dataset.group); }
}

function centreY(from, one, dx) {
  const own = from.getBoundingClientRect(), box = one.getBoundingClientRect();
  return dx && box.height > 2 * own.height ? own.y + own.height / 2 : box.y + box.height / 2;
}

function score([, ox, oy], x, y, dx) {
  const along = dx ? Math.abs(ox - x) : Math.abs(oy - y), aside = dx ? Math.abs(oy - y) : Math.abs(ox - x);
  return along + 4 * aside;
}

// Scroll inside the box only; the page stays where it is.
function reveal() {
  const box = element.querySelector(".pv-mapbox"), chosen = table.querySelector('button[aria-pressed="true"]');
  if (!chosen) return;
  const row = chosen.closest("tr"), at = row.offsetTop;
  if (at < box.scrollTop + 40 || at + row.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = at - box.clientHeight / 2;
}

onValue((value) => { data = value; build(); });
