// All units of one group as a grid of small squares; click one, or move with the arrow keys.

let data = null, over = null;
const label = make("p", {class: "pv-readout", "aria-live": "polite"});
const canvas = make("canvas", {
  tabindex: 0, role: "slider", onkeydown: key, onclick: (event) => pick(unitAt(event)),
  onpointermove: (event) => { over = unitAt(event); draw(); }, onpointerleave: () => { over = null; draw(); },
});
element.replaceChildren(make("div", {class: "pv-units"}, canvas, label));
const send = later(() => trigger("pick", {group: data.group, unit: data.unit}), 120);

function shape() {
  const width = Math.max(200, element.clientWidth - 2), side = data.units <= 64 ? 30 : data.units <= 600 ? 11 : data.units <= 2048 ? 9 : data.units <= 6000 ? 6 : 4;
  const columns = Math.max(1, Math.min(data.units, Math.floor(width / side)));
  return {side, columns, rows: Math.ceil(data.units / columns)};
}

function draw() {
  if (!data || !element.clientWidth) return;
  const {side, columns, rows} = shape(), brush = context(canvas, columns * side, rows * side), gap = side > 9 ? 2 : 1;
  brush.font = font(12); brush.textAlign = "center"; brush.textBaseline = "middle";
  for (let unit = 0; unit < data.units; unit++) {
    const x = unit % columns * side, y = Math.floor(unit / columns) * side, chosen = unit === data.unit;
    brush.fillStyle = chosen ? colour("removed") : unit === over ? colour("accent") : side < 30 ? colour("line") : colour("soft");
    brush.fillRect(x, y, side - gap, side - gap);
    if (side < 30) continue;
    brush.fillStyle = chosen || unit === over ? colour("panel") : colour("text");
    brush.fillText(unit, x + (side - gap) / 2, y + (side - gap) / 2);
  }
  const shown = over ?? data.unit;
  label.textContent = data.word + " " + shown + " of 0 to " + (data.units - 1) + (over !== null && over !== data.unit ? ", click to choose" : ", chosen");
  for (const [name, value] of [["valuemin", 0], ["valuemax", data.units - 1], ["valuenow", data.unit], ["label", data.word]]) canvas.setAttribute("aria-" + name, value);
}

function unitAt(event) {
  const {side, columns} = shape(), unit = Math.floor(event.offsetY / side) * columns + Math.min(columns - 1, Math.floor(event.offsetX / side));
  return unit >= 0 && unit < data.units ? unit : null;
}

function pick(unit) {
  if (unit === null || unit < 0 || unit >= data.units) return;
  data.unit = unit;
  draw();
  send();
}

function key(event) {
  const step = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: shape().columns, ArrowUp: -shape().columns}[event.key];
  if (step !== undefined) { event.preventDefault(); pick(data.unit + step); }
  if (event.key === "Home" || event.key === "End") { event.preventDefault(); pick(event.key === "Home" ? 0 : data.units - 1); }
}

onTheme(draw);
new ResizeObserver(later(draw, 60)).observe(element);
onValue((value) => { data = value; over = null; draw(); });
