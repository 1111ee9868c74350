// All units of one group as a grid of small squares: look at one, choose several for the plan.

// `waiting` is what was chosen here and the server has not told back: an older answer must not undo it.
let data = null, over = null, cursor = 0, anchor = 0, chosen = new Set(), waiting = null;
const label = make("p", {class: "pv-readout", "aria-live": "polite"}), hint = make("p", {class: "pv-quiet"});
const canvas = make("canvas", {
  tabindex: 0, role: "slider", onkeydown: key, onclick: click,
  onpointermove: (event) => { over = unitAt(event); draw(); }, onpointerleave: () => { over = null; draw(); },
});
element.replaceChildren(make("div", {class: "pv-units"}, canvas, label, hint));
const look = later(() => trigger("pick", {group: data.group, unit: data.unit}), 120);
const choose = later(() => {
  const told = waiting;
  if (!told) return;
  trigger("choose", told);
  setTimeout(() => { if (waiting === told) waiting = null; }, 3000);  // what is refused is never told back
}, 200);

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
    const x = unit % columns * side, y = Math.floor(unit / columns) * side, size = side - gap, goes = chosen.has(unit);
    brush.fillStyle = goes ? colour("removed") : unit === over ? colour("line") : colour("soft");
    brush.fillRect(x, y, size, size);
    if (side < 30) continue;
    brush.fillStyle = goes ? colour("panel") : colour("text");
    brush.fillText(unit, x + size / 2, y + size / 2);
    if (goes) brush.fillRect(x + 7, y + size / 2 - 0.75, size - 14, 1.5);  // struck out: not by colour alone
  }
  for (const unit of new Set([data.unit, document.activeElement === canvas ? cursor : data.unit])) if (unit !== null) frame(brush, unit, side, columns, gap);
  say();
}

function frame(brush, unit, side, columns, gap) {
  const wide = side >= 30 ? 2 : side > 6 ? 1.5 : 1;
  brush.strokeStyle = colour("text"); brush.lineWidth = wide;
  brush.strokeRect(unit % columns * side + wide / 2, Math.floor(unit / columns) * side + wide / 2, side - gap - wide, side - gap - wide);
}

function say() {
  const shown = over ?? (document.activeElement === canvas ? cursor : data.unit);
  const state = (unit) => (chosen.has(unit) ? ", goes" : "") + (unit === data.unit ? ", shown below" : "");
  const total = count(chosen.size, "unit") + " of " + data.units.toLocaleString("en-US") + " chosen";
  label.textContent = (shown === null ? "" : data.word + " " + shown + state(shown) + " · ") + (data.fixed ? "cannot be chosen" : total);
  hint.textContent = data.fixed ? "Click or Enter: look at a unit. Not offered: " + data.fixed + "." : "Click or Enter: look at a unit. Ctrl+click or Space: choose it. Shift+click or Shift+arrows: a range.";
  const now = shown ?? cursor;
  for (const [name, value] of [["valuemin", 0], ["valuemax", data.units - 1], ["valuenow", now], ["valuetext", data.word + " " + now + state(now)], ["label", data.word + "s. " + hint.textContent]]) canvas.setAttribute("aria-" + name, value);
}

function unitAt(event) {
  const {side, columns} = shape(), unit = Math.floor(event.offsetY / side) * columns + Math.min(columns - 1, Math.floor(event.offsetX / side));
  return unit >= 0 && unit < data.units ? unit : null;
}

function click(event) {
  const unit = unitAt(event);
  if (unit === null) return;
  if (event.shiftKey) span(anchor, unit);
  else if (event.ctrlKey || event.metaKey) toggle(unit);
  else show(unit);
  cursor = unit;
  if (!event.shiftKey) anchor = unit;
  draw();
}

function show(unit) { data.unit = unit; look(); }

function toggle(unit) {
  if (data.fixed) return;
  if (!chosen.delete(unit)) chosen.add(unit);
  changed();
}

function span(from, to) {
  if (data.fixed) return;
  for (let unit = Math.min(from, to); unit <= Math.max(from, to); unit++) chosen.add(unit);
  changed();
}

function changed() {
  waiting = {group: data.group, units: ranges([...chosen])};
  choose();
}

// The same text as core.spec.units.numbers_text.
function ranges(units) {
  units.sort((a, b) => a - b);
  const runs = [];
  for (const unit of units) if (runs.length && runs.at(-1)[1] === unit - 1) runs.at(-1)[1] = unit; else runs.push([unit, unit]);
  return runs.map(([first, last]) => first === last ? String(first) : first + "-" + last).join(",");
}

function numbers(text) {
  const units = new Set();
  for (const run of text ? text.split(",") : []) {
    const [first, last] = run.split("-").map(Number);
    for (let unit = first; unit <= (last ?? first); unit++) units.add(unit);
  }
  return units;
}

function key(event) {
  const {columns} = shape(), step = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns}[event.key];
  const ends = {Home: 0, End: data.units - 1}[event.key], before = cursor;
  if (event.key === " ") toggle(cursor);
  else if (event.key === "Enter") show(cursor);
  else if (step !== undefined || ends !== undefined) {
    const next = ends ?? cursor + step;
    if (next >= 0 && next < data.units) cursor = next;
    if (event.shiftKey && cursor !== before) span(before, cursor);
  } else return;
  event.preventDefault();
  draw();
}

onTheme(draw);
new ResizeObserver(later(draw, 60)).observe(element);
canvas.addEventListener("focus", draw);
canvas.addEventListener("blur", draw);
onValue((value) => {
  const moved = !data || data.group !== value.group || data.unit !== value.unit;
  data = value;
  if (waiting?.group === data.group && waiting.units === data.chosen) waiting = null;
  chosen = numbers(waiting?.group === data.group ? waiting.units : data.chosen);
  if (moved) { over = null; cursor = anchor = value.unit ?? 0; }
  draw();
});
