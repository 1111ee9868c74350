// Every unit by two criteria, on a canvas. A box or lasso chooses units; nothing is asked of the server until they
// are taken into a plan.

let data = null, chosen = new Uint8Array(0), tool = "box", drag = null, bounds = null, near = null, percent = 10;
const readout = make("p", {class: "pv-readout", id: "scores-point", "aria-live": "polite"});
const summary = make("p", {class: "pv-summary", id: "scores-chosen", "aria-live": "polite"});
const canvas = make("canvas", {tabindex: 0, role: "img"});
const tools = ["box", "lasso"].map((name) => make("button", {type: "button", class: "pv-tool", "data-tool": name, onclick: () => use(name)}, name === "box" ? "Box" : "Lasso"));
const share = make("input", {type: "number", min: 0.1, max: 99, step: 0.1, value: 10, id: "scores-share", "aria-label": "Share of units in percent", onchange: () => setPercent()});
const lowest = make("button", {type: "button", class: "pv-tool", id: "scores-lowest", onclick: () => chooseLowest()});
const clear = make("button", {type: "button", class: "pv-tool", id: "scores-clear", onclick: () => choose(() => false)}, "Clear");
const take = make("button", {type: "button", class: "pv-take", id: "scores-take", onclick: () => trigger("take", {removed: picked()})}, "Take into a plan");
const MARGIN = {left: 62, right: 12, top: 10, bottom: 44};

element.replaceChildren(make("div", {class: "pv-panel pv-scatter"},
  make("div", {class: "pv-tools"}, tools, make("span", {class: "pv-quiet"}, "or the lowest"), share, make("span", {class: "pv-quiet"}, "%"), lowest, clear),
  make("div", {}, canvas), readout, make("div", {class: "pv-tools"}, summary, take)));

function use(name) {
  tool = name;
  tools.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.tool === name)));
}

// An axis: logarithmic where every score is positive and they span more than a factor of 5.
function axis(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) if (Number.isFinite(value)) { if (value < low) low = value; if (value > high) high = value; }
  const log = low > 0 && high / low > 5, to = log ? Math.log10 : (v) => v;
  const a = to(low), b = to(high), room = (b - a || 1) * 0.03;
  return {log, to, first: a - room, last: b + room};
}

function place() {
  const width = canvas.parentElement.clientWidth || 520, height = 380;
  const wide = width - MARGIN.left - MARGIN.right, high = height - MARGIN.top - MARGIN.bottom;
  const [ax, ay] = [axis(data.xs), axis(data.ys)];
  const px = Float32Array.from(data.xs, (v) => MARGIN.left + wide * (ax.to(v) - ax.first) / (ax.last - ax.first));
  const py = Float32Array.from(data.ys, (v) => MARGIN.top + high * (1 - (ay.to(v) - ay.first) / (ay.last - ay.first)));
  bounds = {width, height, wide, high, ax, ay, px, py};
}

const draw = once(() => {
  if (!data || !element.offsetWidth) return;
  const {width, height, px, py} = bounds, brush = context(canvas, width, height), side = px.length > 5000 ? 2 : px.length > 500 ? 3 : 6;
  drawAxes(brush);
  brush.globalAlpha = px.length > 5000 ? 0.35 : 0.6;
  brush.fillStyle = colour("embedding");
  for (let i = 0; i < px.length; i++) if (!chosen[i]) brush.fillRect(px[i] - side / 2, py[i] - side / 2, side, side);
  brush.globalAlpha = 0.9;
  brush.fillStyle = colour("removed");
  for (let i = 0; i < px.length; i++) if (chosen[i]) brush.fillRect(px[i] - side / 2, py[i] - side / 2, side, side);
  brush.globalAlpha = 1;
  if (near !== null) { brush.strokeStyle = colour("text"); brush.lineWidth = 2; brush.beginPath(); brush.arc(px[near], py[near], 6, 0, 7); brush.stroke(); }
  if (drag) drawDrag(brush);
});

function drawAxes(brush) {
  const {wide, high, height, ax, ay} = bounds, bottom = MARGIN.top + high;
  brush.font = font(11); brush.strokeStyle = colour("line"); brush.fillStyle = colour("quiet"); brush.lineWidth = 1;
  brush.strokeRect(MARGIN.left, MARGIN.top, wide, high);
  brush.textAlign = "center"; brush.textBaseline = "top";
  for (const [value, at] of ticks(ax)) { const x = MARGIN.left + wide * at; brush.beginPath(); brush.moveTo(x, bottom); brush.lineTo(x, bottom + 4); brush.stroke(); brush.fillText(value, x, bottom + 7); }
  brush.textAlign = "right"; brush.textBaseline = "middle";
  for (const [value, at] of ticks(ay)) { const y = bottom - high * at; brush.beginPath(); brush.moveTo(MARGIN.left - 4, y); brush.lineTo(MARGIN.left, y); brush.stroke(); brush.fillText(value, MARGIN.left - 7, y); }
  brush.fillStyle = colour("text"); brush.font = font(12); brush.textAlign = "center"; brush.textBaseline = "bottom";
  brush.fillText(data.x.name, MARGIN.left + wide / 2, height - 4);
  brush.save(); brush.translate(13, MARGIN.top + high / 2); brush.rotate(-Math.PI / 2); brush.fillText(data.y.name, 0, 0); brush.restore();
}

// Round numbers on either kind of axis: [label, place from 0 to 1].
function ticks({log, first, last}) {
  const span = last - first, found = [], step = log ? Math.max(1, Math.ceil(span / 6)) : niceStep(span / 5);
  const between = log && span < 2.5 ? [0, Math.log10(2), Math.log10(5)] : [0];
  for (let base = Math.floor(first / step) * step; base <= last; base += step)
    for (const more of between) if (base + more >= first && base + more <= last) found.push([write(log ? 10 ** (base + more) : base), (base + more - first) / span]);
  return found;
}

function niceStep(raw) {
  const power = 10 ** Math.floor(Math.log10(raw)), lead = raw / power;
  return power * (lead > 5 ? 10 : lead > 2 ? 5 : lead > 1 ? 2 : 1);
}

function write(value) {
  return value !== 0 && (Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3) ? value.toExponential(0) : String(+value.toPrecision(3));
}

function drawDrag(brush) {
  brush.strokeStyle = colour("accent"); brush.fillStyle = colour("accent"); brush.lineWidth = 1.5; brush.setLineDash([5, 4]);
  brush.beginPath();
  if (tool === "box") brush.rect(drag.x, drag.y, drag.toX - drag.x, drag.toY - drag.y);
  else drag.path.forEach(([x, y], i) => (i ? brush.lineTo(x, y) : brush.moveTo(x, y)));
  brush.stroke(); brush.globalAlpha = 0.12; brush.fill(); brush.globalAlpha = 1; brush.setLineDash([]);
}

function inside(path, x, y) {
  let odd = false;
  for (let i = 0, j = path.length - 1; i < path.length; j = i++) {
    const [ax, ay] = path[i], [bx, by] = path[j];
    if (ay > y !== by > y && x < (bx - ax) * (y - ay) / (by - ay) + ax) odd = !odd;
  }
  return odd;
}

canvas.addEventListener("pointerdown", (event) => {
  if (!data) return;
  canvas.setPointerCapture(event.pointerId);
  const [x, y] = [event.offsetX, event.offsetY];
  drag = {x, y, toX: x, toY: y, path: [[x, y]], add: event.shiftKey};
});
canvas.addEventListener("pointermove", (event) => {
  if (!data) return;
  if (!drag) return hover(event.offsetX, event.offsetY);
  drag.toX = event.offsetX; drag.toY = event.offsetY; drag.path.push([event.offsetX, event.offsetY]);
  draw();
});
canvas.addEventListener("pointerup", () => {
  if (!drag) return;
  const done = drag, {px, py} = bounds;
  drag = null;
  const [left, right] = [Math.min(done.x, done.toX), Math.max(done.x, done.toX)], [top, bottom] = [Math.min(done.y, done.toY), Math.max(done.y, done.toY)];
  const holds = tool === "box" ? (i) => px[i] >= left && px[i] <= right && py[i] >= top && py[i] <= bottom : (i) => inside(done.path, px[i], py[i]);
  if (right - left < 3 && bottom - top < 3) { if (near !== null) { const one = near, was = chosen[one]; choose((i) => (i === one ? !was : chosen[i])); } else draw(); return; }
  choose((i) => holds(i) || (done.add && chosen[i]));
});
canvas.addEventListener("pointerleave", () => { near = null; rest(); draw(); });

function hover(x, y) {
  const {px, py} = bounds;
  let best = null, far = 64;
  for (let i = 0; i < px.length; i++) {
    const d = (px[i] - x) ** 2 + (py[i] - y) ** 2;
    if (d < far) { far = d; best = i; }
  }
  if (best === near) return;
  near = best;
  if (near === null) rest(); else readout.textContent = describe(near);
  draw();
}

function rest() { readout.textContent = "Drag over points to choose units, Shift adds; point at one to read it."; }

function owner(index) {
  let first = 0;
  for (const group of data.groups) { if (index < first + group.units) return [group, index - first]; first += group.units; }
  return [data.groups[0], 0];
}

function describe(index) {
  const [group, unit] = owner(index), where = group.layer === null ? "" : "layer " + group.layer + ", ";
  return where + data.word + " " + unit + ": " + data.x.name + " " + write(data.xs[index]) + ", " + data.y.name + " " + write(data.ys[index]);
}

function choose(holds) {
  const next = new Uint8Array(data.xs.length);
  for (let i = 0; i < next.length; i++) next[i] = holds(i) ? 1 : 0;
  chosen = next;
  tell();
  draw();
}

// What is no number leaves the last one; what is out of reach is brought within, and that is said.
function setPercent() {
  const typed = share.value === "" ? percent : Number(share.value);
  percent = Math.min(99, Math.max(0.1, typed));
  share.value = percent;
  if (percent !== typed) readout.textContent = "The lowest 0.1 to 99 % can be chosen, got " + typed + "; " + percent + " % is taken.";
}

function chooseLowest() {
  const wanted = Math.round(data.xs.length * percent / 100);
  const order = [...data.xs.keys()].sort((a, b) => data.xs[a] - data.xs[b] || a - b), low = new Set(order.slice(0, wanted));
  choose((i) => low.has(i));
}

// group id -> chosen units, in order.
function picked() {
  const found = {};
  let first = 0;
  for (const group of data.groups) {
    const units = [];
    for (let unit = 0; unit < group.units; unit++) if (chosen[first + unit]) units.push(unit);
    if (units.length) found[group.id] = units;
    first += group.units;
  }
  return found;
}

function tell() {
  const found = picked(), ids = Object.keys(found), costs = new Map(data.groups.map((group) => [group.id, group.params]));
  const units = ids.reduce((sum, id) => sum + found[id].length, 0), params = ids.reduce((sum, id) => sum + found[id].length * costs.get(id), 0);
  summary.textContent = units ? count(units, data.word) + " in " + count(ids.length, "layer") + ", " + count(params, "parameter") : "Nothing chosen yet.";
  take.disabled = clear.disabled = !units;
}

onTheme(() => draw());
new ResizeObserver(later(() => { if (data && element.offsetWidth) { place(); draw(); } }, 60)).observe(element);
onValue((value) => {
  data = {...value, xs: decode(value.x.data), ys: decode(value.y.data)};
  chosen = new Uint8Array(data.xs.length);
  near = null;
  lowest.textContent = "by " + data.x.name;
  canvas.setAttribute("aria-label", "Every " + data.word + " by " + data.x.name + " and " + data.y.name);
  use(tool); rest(); tell(); place(); draw();
});
