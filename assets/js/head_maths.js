// What follows from the divergences of one layer: pairs, candidates, communities, places. No drawing.

// Row-major float32 numbers, sent as base64: the raw values, so hovering shows what was measured.
function decode(text) {
  return new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
}

// Thresholds are compared in single precision, as the divergences are kept and as the engine compares them.
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
      if (i !== j && d[i * heads + j] < limit && !candidates.has(i) && !candidates.has(j)) candidates.set(i, j);
  return candidates;
}

// Connected components of the graph of pairs: for each head the number of its community, or -1 if it is alone.
function communities(pairs, heads) {
  const parent = [...Array(heads).keys()];
  const root = (i) => { while (parent[i] !== i) i = parent[i] = parent[parent[i]]; return i; };
  for (const [i, j] of pairs) parent[Math.max(root(i), root(j))] = Math.min(root(i), root(j));
  const size = new Map(), number = new Map();
  for (let i = 0; i < heads; i++) size.set(root(i), (size.get(root(i)) || 0) + 1);
  return [...Array(heads).keys()].map((i) => {
    if (size.get(root(i)) === 1) return -1;
    if (!number.has(root(i))) number.set(root(i), number.size);
    return number.get(root(i));
  });
}

// Places in the unit square whose distances follow the divergences (stress majorisation from a circle).
// They do not depend on tau, so nothing jumps while the threshold moves.
function places(d, heads) {
  const at = [...Array(heads).keys()].map((i) => [Math.cos(2 * Math.PI * i / heads), Math.sin(2 * Math.PI * i / heads)]);
  const wanted = (i, j) => { const x = d[i * heads + j]; return Number.isFinite(x) ? x : 1; };
  for (let round = 0; round < 150; round++)
    for (let i = 0; i < heads; i++) {
      let x = 0, y = 0;
      for (let j = 0; j < heads; j++) {
        if (i === j) continue;
        const dx = at[i][0] - at[j][0], dy = at[i][1] - at[j][1], far = Math.hypot(dx, dy) || 1e-6;
        x += at[j][0] + wanted(i, j) * dx / far;
        y += at[j][1] + wanted(i, j) * dy / far;
      }
      if (heads > 1) at[i] = [x / (heads - 1), y / (heads - 1)];
    }
  return spread(fit(at), Math.min(0.16, 0.8 / Math.sqrt(heads)));
}

// Scale both axes alike so that the longer one fills the square.
function fit(at) {
  const low = [0, 1].map((k) => Math.min(...at.map((p) => p[k]))), high = [0, 1].map((k) => Math.max(...at.map((p) => p[k])));
  const span = Math.max(high[0] - low[0], high[1] - low[1]) || 1;
  return at.map((p) => [0, 1].map((k) => 0.5 + (p[k] - (low[k] + high[k]) / 2) / span));
}

// Push apart what is nearer than `gap`, so that no head hides another.
function spread(at, gap) {
  for (let round = 0; round < 60; round++)
    for (let i = 0; i < at.length; i++)
      for (let j = i + 1; j < at.length; j++) {
        const dx = at[j][0] - at[i][0] || 1e-3 * (j - i), dy = at[j][1] - at[i][1], far = Math.hypot(dx, dy) || 1e-3;
        if (far >= gap) continue;
        const push = (gap - far) / far / 2;
        at[i] = [at[i][0] - dx * push, at[i][1] - dy * push];
        at[j] = [at[j][0] + dx * push, at[j][1] + dy * push];
      }
  return fit(at);
}
