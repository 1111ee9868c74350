// A budget spread over the groups by their measured curves. All of it arrives once; a drag asks nobody.

let data = null, share = 0, counts = new Map(), cells = new Map(), sending = false;
const UNITS = {share: "share of block parameters", params: "parameters", size: "weights at 16 bits", time: "time"};
const range = make("input", {type: "range", min: 0, max: 1000, step: 1, value: 0, id: "budget-slider", oninput: () => setShare(range.value / 1000)});
const number = make("input", {type: "number", min: 0, max: 95, step: 0.1, id: "budget-percent", "aria-label": "Percent that goes", onchange: () => setShare(number.value === "" ? NaN : number.value / 100)});
const quantity = make("select", {id: "budget-of", "aria-label": "What the budget is of", onchange: () => setShare(share)});
const summary = make("p", {class: "pv-summary", "aria-live": "polite"}), readout = make("p", {class: "pv-readout"});
const bounds = make("p", {class: "pv-note", id: "budget-bounds", role: "status", hidden: true});
const rows = make("div", {class: "pv-widths"}), about = make("p", {class: "pv-quiet"});
const launch = make("button", {type: "button", class: "pv-take", id: "budget-launch", onclick: send}, "Prune exactly this…");
element.replaceChildren(make("div", {class: "pv-panel pv-budget"},
  make("h3", {}, "Spread a budget over these curves"), about,
  make("div", {class: "pv-budgetbar"}, make("label", {for: "budget-slider"}, "Goes"), range, number, make("span", {}, "% of"), quantity), bounds,
  summary, rows, readout, make("div", {class: "pv-tools"}, launch)));

// y at x on the line through points (xs, ys), xs rising; flat beyond its ends.
function on(xs, ys, x) {
  if (x <= xs[0]) return ys[0];
  for (let i = 1; i < xs.length; i++)
    if (x <= xs[i]) return xs[i] === xs[i - 1] ? ys[i] : ys[i - 1] + (ys[i] - ys[i - 1]) * (x - xs[i - 1]) / (xs[i] - xs[i - 1]);
  return ys[ys.length - 1];
}

// How many units of a group cost less than `price` per parameter each, at most what it may give.
function affordable(group, price) {
  const {at, slopes, most} = group, limit = price * group.cost;
  let i = slopes.length;
  while (i > 0 && slopes[i - 1] > limit) i--;
  if (i === slopes.length) return most;
  if (i === 0) return 0;
  // Unit n costs what the line says at n + 1/2.
  const far = at[i - 1] + (at[i] - at[i - 1]) * (limit - slopes[i - 1]) / (slopes[i] - slopes[i - 1]);
  return Math.min(most, Math.floor(far + 0.5));
}

function params(group, n) {
  if (!n) return 0;
  return (group.saved.length > 2 || group.units <= 2 ? group.saved[n] : n * group.saved[1]) - group.added;
}

function saves(group, n) {
  if (quantity.value !== "time") return params(group, n);
  const points = data.time.saved[group.kind];
  return group.weight * on(points.map((p) => p[0]), points.map((p) => p[1]), n / group.units);
}

function total(of, by = saves) { return data.groups.reduce((sum, group) => sum + by(group, of.get(group.id)), 0); }

function whole() { return {share: data.scope, params: data.params, size: data.params, time: data.time?.dense}[quantity.value]; }

// The knapsack: one price for all groups (the Lagrangian). What heads, which are coarse, leave over, channels fill up.
function spread(goal) {
  const at = (price, heads) => new Map(data.groups.map((group) => [group.id, heads && group.part !== "ffn" ? heads.get(group.id) : affordable(group, price)]));
  if (goal <= 0) return at(-Infinity);
  const [below, above] = around(goal, (price) => at(price));
  const [, filled] = around(goal, (price) => at(price, below));
  const off = (plan) => Math.abs(total(plan) - goal);
  return off(filled) <= off(above) ? filled : above;
}

// The plans of the last price that is too low for the goal, and of the first that is not.
function around(goal, plan) {
  let low = Math.min(...data.groups.map((g) => g.slopes[0] / g.cost)), high = Math.max(...data.groups.map((g) => g.slopes[g.slopes.length - 1] / g.cost));
  low -= Math.abs(low) + 1e-12;
  for (let i = 0; i < 50; i++) {
    const middle = (low + high) / 2;
    if (total(plan(middle)) >= goal) high = middle; else low = middle;
  }
  return [plan(low), plan(high)];
}

function most() { return total(new Map(data.groups.map((group) => [group.id, group.most]))) / whole(); }

// A share that is no number leaves the last one; one that is out of reach is brought within, and that is said.
function setShare(wanted) {
  if (!data) return;
  const began = performance.now(), limit = most();
  share = Number.isFinite(wanted) ? Math.max(0, Math.min(wanted, limit)) : share;
  bounds.textContent = wanted < 0 ? "The least is 0 %: then nothing goes." : wanted > limit + 0.0005 ? atMost(limit) : "";
  bounds.hidden = !bounds.textContent;
  range.value = Math.round(1000 * share);
  if (document.activeElement !== number || number.value === "" || Number(number.value) !== 100 * share) number.value = percent(share);
  counts = spread(share * whole());
  paint();
  element.dataset.took = (performance.now() - began).toFixed(1);
}

function percent(value) { return (100 * value).toFixed(1); }

function atMost(limit) {
  const held = data.groups.some((group) => group.most < group.units - 1);
  const why = held ? "no group gives more than was measured of it" : "one unit of every group must stay";
  const rest = quantity.value === "share" ? "" : ", and the rest is not in these groups";
  return "The most is " + percent(limit) + " %: " + why + rest + ".";
}

function big(value) {
  for (const [size, name] of [[1e9, " B"], [1e6, " M"], [1e3, " k"]]) if (value >= size) return (value / size).toPrecision(3) + name;
  return String(Math.round(value));
}

function paint() {
  const gone = total(counts, params), left = data.params - gone;
  const parts = [(100 * gone / data.scope).toFixed(1) + " % of block parameters go, " + big(left) + " of " + big(data.params) + " stay", (2 * left / 2 ** 20).toFixed(0) + " MiB at 16 bits"];
  if (data.time) {
    const was = quantity.value;
    quantity.value = "time";
    parts.push((data.time.dense - total(counts)).toPrecision(3) + " of " + data.time.dense.toPrecision(3) + " ms predicted");
    quantity.value = was;
  }
  const loss = data.groups.reduce((sum, group) => sum + on(group.gone, group.loss, counts.get(group.id)), 0);
  parts.push(loss.toFixed(2) + " nats, were the losses of single groups to add up");
  summary.textContent = parts.join(" · ");
  range.setAttribute("aria-valuetext", parts[0]);
  for (const group of data.groups) {
    const {bar, dot} = cells.get(group.id), n = counts.get(group.id), share = n / group.units;
    bar.style.width = 100 * share + "%";
    dot.style.left = 100 * share + "%";
    dot.style.bottom = 100 * height(group, on(group.gone, group.loss, n)) + "%";
  }
  launch.disabled = sending || !gone;
}

// Losses differ by orders of magnitude; the root lets small ones be seen.
function height(group, loss) { return Math.min(1, Math.sqrt(Math.max(0, loss) / data.top)); }

function said(group) {
  const n = counts.get(group.id), what = group.part === "ffn" ? "channels" : "heads";
  return "Layer " + group.layer + ": " + (group.units - n).toLocaleString("en-US") + " of " + group.units.toLocaleString("en-US") + " " + what + " stay; alone that costs " + on(group.gone, group.loss, n).toPrecision(3) + " nats" + (n > group.gone[group.measured - 1] ? ", more than was measured" : "");
}

function cell(group) {
  const points = group.gone.slice(0, group.measured).map((n, i) => (100 * n / group.units).toFixed(1) + " " + (100 - 100 * height(group, group.loss[i])).toFixed(1));
  const line = make("svg", {viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true"}, make("path", {d: "M" + points.join("L"), fill: "none", "vector-effect": "non-scaling-stroke"}));
  const bar = make("i"), dot = make("b");
  const node = make("button", {type: "button", class: "pv-width pv-" + group.part, "aria-label": group.part + " of layer " + group.layer}, bar, line, dot);
  const tell = () => { readout.textContent = said(group); };
  for (const event of ["pointerenter", "focus"]) node.addEventListener(event, tell);
  cells.set(group.id, {bar, dot});
  return node;
}

function build() {
  cells = new Map();
  const titles = {attention: "Attention: heads that go", ffn: "FFN: channels that go"};
  rows.replaceChildren(...Object.entries(titles).flatMap(([part, title]) => {
    const own = data.groups.filter((group) => group.part === part);
    if (!own.length) return [];
    const nodes = own.map(cell);
    rove(nodes, () => 1, null);
    nodes.forEach((node, i) => { node.tabIndex = i ? -1 : 0; });
    const numbers = own.map((group) => make("small", {}, group.layer));
    const style = "grid-template-columns: repeat(" + own.length + ", minmax(22px, 1fr))";
    return [make("h4", {}, title), make("div", {class: "pv-widthrow", style, role: "group", "aria-label": title}, nodes, numbers)];
  }));
}

function send() {
  sending = true;
  launch.disabled = true;
  trigger("launch", {counts: JSON.stringify(Object.fromEntries(counts))});
  setTimeout(() => { sending = false; if (data) paint(); }, 3000);
}

onValue((value) => {
  element.hidden = !value.groups;
  if (!value.groups) return;
  data = value;
  data.top = Math.max(1e-9, ...data.groups.flatMap((group) => group.loss.slice(0, group.measured)));
  const held = quantity.value;
  quantity.replaceChildren(...Object.entries(UNITS).filter(([name]) => name !== "time" || data.time).map(([name, title]) => make("option", {value: name}, name === "time" ? "time at " + data.time.about.split(" on ")[0] : title)));
  if ([...quantity.options].some((option) => option.value === held)) quantity.value = held;
  about.textContent = data.about + " The price of a unit is its loss per parameter; every group gives until its next unit would cost more than that of any other. Units go in the order of " + data.criterion + ".";
  build();
  readout.textContent = "Each box is a curve of one layer: how much it loses (up) as units go (right). Point at one to read it.";
  setShare(share > 0 ? share : Math.min(0.2, most()));
});
