// What follows from the divergences of one layer: pairs, candidates, communities, places. No drawing.

// How many pairs lie below tau. Thresholds are compared in single precision, as the divergences are kept and as the
// engine compares them.
function countBelow(d, heads, tau) {
  const limit = Math.fround(tau);
  let pairs = 0;
  for (let i = 0; i < heads; i++)
    for (let j = i + 1; j < heads; j++) if (d[i * heads + j] < limit) pairs++;
  return pairs;
}

function pairsBelow(d, heads, tau) {
  const limit = Math.fround(tau), pairs = [];
  for (let i = 0; i < heads; i++)
    for (let j = i + 1; j < heads; j++) if (d[i * heads + j] < limit) pairs.push([i, j]);
  return pairs;
}

// Algorithm 1 of the output-approximation paper, row by row. Each candidate comes with the head that stays for it.
function algorithm1(d, heads, tau) {
  const limit = Math.fround(tau), candidates = new Map();
  for (let i = 0; i < heads; i++)
    for (let j = 0; j < heads; j++)
      if (i !== j && d[i * heads + j] < limit && !candidates.has(j)) { candidates.set(i, j); break; }  // i is taken once
  return candidates;
}

// Connected components of the graph of pairs: for each head the number of its community, or -1 if it is alone.
function communities(pairs, heads) {
  const parent = [...Array(heads).keys()];
  const root = (i) => { while (parent[i] !== i) i = parent[i] = parent[parent[i]]; return i; };
  let left = heads;
  for (const [i, j] of pairs) {
    const a = root(i), b = root(j);
    if (a === b) continue;
    parent[Math.max(a, b)] = Math.min(a, b);
    if (--left === 1) break;  // all are one
  }
  const size = new Map(), number = new Map();
  for (let i = 0; i < heads; i++) size.set(root(i), (size.get(root(i)) || 0) + 1);
  return [...Array(heads).keys()].map((i) => {
    if (size.get(root(i)) === 1) return -1;
    if (!number.has(root(i))) number.set(root(i), number.size);
    return number.get(root(i));
  });
}

// Places in the unit square whose distances follow the divergences (stress majorisation from a circle).
// They do not depend on tau, so nothing jumps while the threshold moves. Flat arrays: 80 layers of 64 heads
// are placed at once.
function places(d, heads) {
  const x = new Float64Array(heads), y = new Float64Array(heads);
  for (let i = 0; i < heads; i++) { x[i] = Math.cos(2 * Math.PI * i / heads); y[i] = Math.sin(2 * Math.PI * i / heads); }
  const rounds = heads > 1 ? Math.round(Math.min(150, 3000 / heads)) : 0;
  for (let round = 0; round < rounds; round++) for (let i = 0; i < heads; i++) pull(d, heads, x, y, i);
  fit(x, y);
  spread(x, y, Math.min(0.16, 0.8 / Math.sqrt(heads)));
  fit(x, y);
  return Array.from(x, (value, i) => [value, y[i]]);
}

// Move head i to where the others would have it.
function pull(d, heads, x, y, i) {
  let sumX = 0, sumY = 0;
  for (let j = 0; j < heads; j++) {
    if (i === j) continue;
    const dx = x[i] - x[j], dy = y[i] - y[j], far = Math.sqrt(dx * dx + dy * dy) || 1e-6, raw = d[i * heads + j];
    const share = (Number.isFinite(raw) ? raw : 1) / far;
    sumX += x[j] + dx * share;
    sumY += y[j] + dy * share;
  }
  x[i] = sumX / (heads - 1);
  y[i] = sumY / (heads - 1);
}

// Scale both axes alike so that the longer one fills the square; heads that all say the same stay together.
function fit(x, y) {
  const middle = (values) => (Math.min(...values) + Math.max(...values)) / 2, reach = (values) => Math.max(...values) - Math.min(...values);
  const mx = middle(x), my = middle(y), span = Math.max(reach(x), reach(y), 0.05);
  for (let i = 0; i < x.length; i++) { x[i] = 0.5 + (x[i] - mx) / span; y[i] = 0.5 + (y[i] - my) / span; }
}

// Push apart what is nearer than `gap`, so that no head hides another; coinciding heads go different ways.
function spread(x, y, gap) {
  for (let round = 0; round < 80; round++)
    for (let i = 0; i < x.length; i++)
      for (let j = i + 1; j < x.length; j++) {
        let dx = x[j] - x[i], dy = y[j] - y[i], far = Math.sqrt(dx * dx + dy * dy);
        if (far >= gap) continue;
        if (far < gap / 10) { dx += Math.cos(2.4 * j) * gap / 5; dy += Math.sin(2.4 * j) * gap / 5; far = Math.sqrt(dx * dx + dy * dy) || 1e-3; }
        const push = (gap - Math.min(far, gap)) / far / 2;
        x[i] -= dx * push; y[i] -= dy * push;
        x[j] += dx * push; y[j] += dy * push;
      }
}
