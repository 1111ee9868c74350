// Everything on the Heads tab that moves with tau. The divergences arrive once; tau never leaves the browser.

let data = null, layer = null, tau = 0.2, pinned = null, over = null;
const summary = make("p", {class: "pv-summary", "aria-live": "polite"});
const range = make("input", {type: "range", min: 0, max: 1, step: 0.005, id: "heads-tau", "aria-label": "Similarity threshold tau", oninput: () => setTau(range.value)});
const number = make("input", {type: "number", min: 0, max: 1, step: 0.005, id: "heads-tau-number", "aria-label": "Similarity threshold tau as a number", onchange: () => setTau(number.value)});
const strip = make("div", {class: "pv-strip", "aria-hidden": "true"});
const thumbs = make("div", {class: "pv-thumbs", role: "listbox", "aria-label": "Layers"});
const heading = make("h3", {id: "heads-layer"});
const readout = make("p", {class: "pv-readout", id: "heads-pair", "aria-live": "polite"});
const list = make("div", {id: "heads-candidates", class: "pv-candidates"});
const taking = make("div", {class: "pv-tools"},
  make("button", {type: "button", class: "pv-take", id: "heads-take", onclick: () => take([layer])}, "Take these heads into a plan"),
  make("button", {type: "button", class: "pv-take", id: "heads-take-all", onclick: () => take([...data.layers.keys()])}, "Those of all layers"));
const graph = new HeadGraph(onPair), matrix = new DivergenceMatrix(onPair);
for (const host of [graph.host, matrix.host]) {
  host.addEventListener("click", () => { if (over) pin(over); });
  host.addEventListener("keydown", (event) => { if (event.key === "Enter" && over) { event.preventDefault(); pin(over); } });
}

element.replaceChildren(make("div", {class: "pv-heads"},
  make("div", {class: "pv-taubar"}, make("label", {for: "heads-tau"}, "Threshold τ"), range, number, summary),
  make("div", {class: "pv-panel"},
    make("h3", {}, "All layers"), make("p", {class: "pv-quiet"}, "Bars count the pairs of heads below τ. Choose a layer."), strip, thumbs),
  make("div", {class: "pv-panel"}, heading, readout,
    make("div", {class: "pv-columns"},
      make("figure", {}, make("figcaption", {}, "Similarity graph: an edge joins two heads below τ"), graph.host,
        saving("the similarity graph", () => "heads-graph-layer-" + data.layers[layer], () => graph.drawing(pinned))),
      make("figure", {}, make("figcaption", {}, "Divergence matrix: a dot marks a pair below τ"), matrix.host,
        saving("the divergences", () => "divergence-layer-" + data.layers[layer], () => matrix.drawing(pinned), divergences)),
      make("div", {}, make("h4", {}, "Algorithm 1"), list, taking)))));

function setTau(text) {
  const value = Number(text);
  if (!text.trim() || !(value >= 0 && value <= 1)) {
    number.value = tau;
    if (text.trim()) summary.textContent = "τ goes from 0 to 1, got " + text + "; it stays at " + tau + ".";
    return;
  }
  tau = value;
  refresh();
  tell();
}

// The address follows once the slider rests; Python is not asked.
const tell = later(() => { element.dataset.tau = String(tau); trigger("tau"); }, 200);

function choose(index) {
  layer = index;
  pinned = null;
  graph.over = null;
  refresh();
  element.dataset.layer = String(data.layers[index]);
  trigger("layer");
}

// What one layer looks like at this tau.
function look(index) {
  const {d, at} = data.parts[index], {heads} = data, pairs = nearestFirst(index).slice(0, countBelow(d, heads, tau)), limit = Math.fround(tau);
  return {d, heads, at, pairs, gone: algorithm1(d, heads, tau), community: communities(pairs, heads), below: ([i, j]) => d[i * heads + j] < limit};
}

const refresh = once(() => {
  if (!data) return;
  range.value = number.value = tau;
  const counts = data.parts.map(({d}) => ({pairs: countBelow(d, data.heads, tau), gone: algorithm1(d, data.heads, tau).size})), own = look(layer);
  const gone = counts.reduce((sum, one) => sum + one.gone, 0), pairs = counts.reduce((sum, one) => sum + one.pairs, 0);
  summary.textContent = count(pairs, "pair") + " below τ. Algorithm 1 would remove " + gone + " of " + count(data.layers.length * data.heads, "head") + ".";
  heading.textContent = "Layer " + data.layers[layer];
  graph.show(own, "Heads of layer " + data.layers[layer]);
  matrix.show(own, data.most, "Divergence matrix of layer " + data.layers[layer] + ", arrow keys read one pair after another");
  drawThumbs(counts);
  taking.hidden = !data.groups.some(Boolean);
  taking.firstChild.disabled = !own.gone.size || !data.groups[layer];
  taking.lastChild.disabled = !gone;
  drawList(own);
  if (pinned === null) pin(nearestPair());
  onPair(null);
});

// Without a pair under the pointer the pinned one is shown.
function onPair(pointed) {
  if (!data) return;
  over = pointed;
  const pair = pointed || pinned;
  graph.paint(pair);
  matrix.paint(pair);
  if (!pair) { readout.textContent = "Point at two heads to read their divergence."; return; }
  const [i, j] = pair, value = data.parts[layer].d[i * data.heads + j];
  readout.textContent = "Heads " + i + " and " + j + ": divergence " + value.toFixed(5) + (value < Math.fround(tau) ? ", below τ" : ", not below τ") + share(i, j) + (pointed ? "; click to pin them." : "; pinned.");
}

// The pinned heads are those whose attention can be looked at.
function pin(pair) {
  pinned = pair;
  element.dataset.pinned = pair ? data.layers[layer] + ":" + [...pair].sort((a, b) => a - b).join(",") : "";
  onPair(null);
  trigger("pin");
}

function nearestPair() {
  const {d} = data.parts[layer];
  let best = null;
  for (let i = 0; i < data.heads; i++)
    for (let j = i + 1; j < data.heads; j++) if (best === null || d[i * data.heads + j] < d[best[0] * data.heads + best[1]]) best = [i, j];
  return best;
}

// Hand what Algorithm 1 would remove of these layers to the New run form.
function take(indices) {
  const removed = {};
  for (const index of indices) {
    const gone = [...look(index).gone.keys()].sort((a, b) => a - b);
    if (gone.length && data.groups[index]) removed[data.groups[index]] = gone;
  }
  trigger("take", {removed});
}

// The layer's divergences as rows, with their heads.
function divergences() {
  const {heads} = data, {d} = data.parts[layer], names = [...Array(heads).keys()];
  return [["head", ...names], ...names.map((i) => [i, ...d.subarray(i * heads, (i + 1) * heads)])];
}

function share(i, j) {
  if (!data.shares) return "";
  return data.shares[i] === data.shares[j] ? "; they share key-value head " + data.shares[i] : "; key-value heads " + data.shares[i] + " and " + data.shares[j];
}

function drawList(own) {
  if (!own.gone.size) { list.replaceChildren(make("p", {class: "pv-quiet"}, "No two heads of this layer lie below τ. Raise τ to see candidates.")); return; }
  const names = [...own.gone.keys()];
  list.replaceChildren(
    make("p", {}, "Would remove " + (names.length === 1 ? "head " : "heads ") + names.join(", ") + " of layer " + data.layers[layer] + "."),
    make("ul", {}, names.map((i) => make("li", {}, make("b", {}, "Head " + i), " resembles head " + own.gone.get(i) + " ("
      + own.d[i * own.heads + own.gone.get(i)].toFixed(4) + ")"))));
}

function buildThumbs() {
  const buttons = data.layers.map((name, index) => make("button", {type: "button", class: "pv-thumb", role: "option", "data-layer": name, onclick: () => choose(index)},
    make("canvas", {"aria-hidden": "true"}), make("span", {}, "L" + name), " ", make("small", {})));
  thumbs.replaceChildren(...buttons);
  inSight.disconnect();
  seen.clear();
  buttons.forEach((button) => inSight.observe(button));
  strip.replaceChildren(...data.layers.map((name, index) => make("i", {onclick: () => choose(index)}, make("b"), make("span", {}, data.layers.length <= 40 || name % 5 === 0 ? String(name) : ""))));
  rove(buttons, () => Math.max(1, buttons.filter((button) => button.offsetTop === buttons[0].offsetTop).length), choose);
}

function drawThumbs(counts) {
  const most = Math.max(1, ...counts.map((one) => one.pairs));
  counts.forEach((one, index) => {
    const button = thumbs.children[index], bar = strip.children[index], pairs = count(one.pairs, "pair");
    button.setAttribute("aria-selected", String(index === layer));
    button.tabIndex = index === layer ? 0 : -1;
    bar.classList.toggle("chosen", index === layer);
    dress(bar.firstChild, "height:" + 100 * one.pairs / most + "%");
    const words = "Layer " + data.layers[index] + ", " + pairs + " below tau, " + one.gone + " to remove";
    if (button.title === words) return;
    button.title = words;
    button.lastChild.textContent = one.pairs ? pairs : "none";
    button.setAttribute("aria-label", "L" + data.layers[index] + " " + button.lastChild.textContent + " below tau, " + one.gone + " to remove");
    bar.title = "Layer " + data.layers[index] + ": " + pairs + " below τ";
  });
  seen.forEach((index) => drawThumb(index));
}

// Thumbnails out of sight are drawn once they are scrolled into it: 80 layers take longer than one frame.
const seen = new Set(), inSight = new IntersectionObserver((changes) => {
  for (const {target, isIntersecting} of changes) {
    const index = data.layers.indexOf(Number(target.dataset.layer));
    if (!isIntersecting) { seen.delete(index); continue; }
    seen.add(index);
    drawThumb(index);
  }
});
onGone(() => inSight.disconnect());

// More edges tell nothing on a thumbnail: of many, those of the heads that are most alike.
const MOST_EDGES = 60;

// All pairs of a layer, those most alike first: what lies below tau is where it begins.
function nearestFirst(index) {
  const part = data.parts[index], {heads} = data;
  if (!part.order) {
    part.order = pairsBelow(part.d, heads, Infinity);
    part.order.sort(([a, b], [i, j]) => part.d[a * heads + b] - part.d[i * heads + j]);
  }
  return part.order;
}

function drawThumb(index) {
  const one = look(index), width = 64, height = 52, brush = context(thumbs.children[index].firstChild, width, height), point = ([x, y]) => [6 + x * (width - 12), 6 + y * (height - 12)];
  brush.globalAlpha = 0.8;
  brush.lineWidth = 1;
  strokeEdges(brush, one.pairs.slice(0, MOST_EDGES), one.community, (i) => point(one.at[i]));
  brush.globalAlpha = 1;
  const radius = one.heads > 24 ? 1.4 : 2.6, dots = new Map();
  one.at.forEach((place, i) => {
    const own = one.gone.has(i) ? "removed" : one.community[i] < 0 ? "quiet" : COMMUNITY[one.community[i] % COMMUNITY.length];
    if (!dots.has(own)) dots.set(own, []);
    dots.get(own).push(point(place));
  });
  for (const [own, places] of dots) {
    brush.fillStyle = colour(own);
    brush.beginPath();
    for (const [x, y] of places) { brush.moveTo(x + radius, y); brush.arc(x, y, radius, 0, 7); }
    brush.fill();
  }
}

// The address is where tau and layer come from when the page opens.
function fromAddress() {
  const query = new URLSearchParams(location.search), asked = Number(query.get("tau") || data.tau);
  tau = asked >= 0 && asked <= 1 ? asked : data.tau;
  selectLayer(query.get("layer"));
}

function selectLayer(name) {
  const index = data.layers.indexOf(Number(name));
  if (name !== "" && name !== null && index >= 0) layer = index;
  else layer = layer === null ? busiest() : Math.min(layer, data.layers.length - 1);
}

// Where nobody asked for a layer, the one with most to see is opened.
function busiest() {
  const pairs = data.parts.map(({d}) => countBelow(d, data.heads, tau));
  return pairs.indexOf(Math.max(...pairs));
}

onTheme(refresh);
new ResizeObserver(later(refresh, 100)).observe(element);
onValue((value) => {
  const all = decode(value.divergence), block = value.heads * value.heads;
  const parts = value.layers.map((_, index) => all.subarray(index * block, (index + 1) * block));
  data = {...value, most: all.reduce((most, x) => (x > most ? x : most), 1e-6), parts: parts.map((d) => ({d, at: places(d, value.heads)}))};
  pinned = null;
  fromAddress();
  buildThumbs();
  refresh();
});
