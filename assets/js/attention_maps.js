// What two heads attend to: rows are the tokens that look, columns the tokens looked at. Tokens are painted or set
// as text, never as markup.

let data = null;
const readout = make("p", {class: "pv-readout", id: "heads-attention-cell", "aria-live": "polite"});
const row = make("div", {class: "pv-maps"});
element.replaceChildren(make("div", {class: "pv-panel"}, readout, row));

// A token as a person can see it: spaces and line breaks have a sign.
function visible(token) { return token.replace(/\n/g, "⏎").replace(/^ /, "") || "␣"; }

const edge = 84;

function measures() {
  const n = data.tokens.length, wide = element.clientWidth - 60, width = Math.min(620, Math.max(wide / data.maps.length, Math.min(wide, 300)));
  const cell = Math.max(4, Math.floor((width - edge) / n));
  return {n, cell, side: edge + cell * n};
}

function paint(map, brush, over) {
  const {n, cell} = measures(), most = Math.max(1e-6, ...map.map((line) => Math.max(...line)));
  for (let i = 0; i < n; i++)
    for (let j = 0; j <= i; j++) {
      brush.fillStyle = mix(colour("sunken"), colour("attention"), Math.sqrt(map[i][j] / most));
      brush.fillRect(edge + j * cell, edge + i * cell, cell - (cell > 8 ? 1 : 0), cell - (cell > 8 ? 1 : 0));
    }
  brush.font = font(Math.min(12, Math.max(8, cell))); brush.textBaseline = "middle";
  const every = Math.ceil(9 / cell);
  data.tokens.forEach((token, i) => {
    if (i % every && !(over && over.includes(i))) return;
    const word = visible(token).slice(0, 12), at = edge + (i + 0.5) * cell;
    brush.fillStyle = over && over[0] === i ? colour("text") : colour("quiet");
    brush.textAlign = "right"; brush.fillText(word, edge - 5, at);
    brush.fillStyle = over && over[1] === i ? colour("text") : colour("quiet");
    brush.save(); brush.translate(at, edge - 5); brush.rotate(-Math.PI / 2); brush.textAlign = "left"; brush.fillText(word, 0, 0); brush.restore();
  });
  if (over) { brush.strokeStyle = colour("text"); brush.lineWidth = 1.5; brush.strokeRect(edge + over[1] * cell, edge + over[0] * cell, cell, cell); }
}

// One head's map for a file, and as rows: a token that looks, and the shares of those it looks at.
function drawing(at) {
  const {side} = measures(), brush = new SvgBrush(side, side);
  paint(data.maps[at], brush, null);
  return brush.svg;
}

function shares(at) {
  const names = data.tokens.map((token) => '"' + visible(token).replace(/^[=@+-]/, "'$&").replaceAll('"', '""') + '"');
  return [["token", ...names], ...data.maps[at].map((line, i) => [names[i], ...line])];
}

const draw = once(() => {
  if (!data || !element.offsetWidth) return;
  const canvases = data.heads.map(() => make("canvas", {role: "img"}));
  row.replaceChildren(...data.heads.map((head, at) => make("figure", {}, make("figcaption", {}, "Layer " + data.layer + ", head " + head), canvases[at],
    saving("the attention of head " + head, () => "attention-layer-" + data.layer + "-head-" + head, () => drawing(at), () => shares(at)))));
  const {n, cell, side} = measures(), paintAll = (over) => data.maps.forEach((map, at) => paint(map, context(canvases[at], side, side), over));
  paintAll(null);
  canvases.forEach((canvas, at) => {
    canvas.setAttribute("aria-label", "Attention of head " + data.heads[at] + " in layer " + data.layer);
    canvas.onpointermove = ({offsetX, offsetY}) => {
      const i = Math.floor((offsetY - edge) / cell), j = Math.floor((offsetX - edge) / cell);
      const inside = i >= 0 && j >= 0 && i < n && j <= i;
      readout.textContent = inside ? describe(i, j) : rest();
      paintAll(inside ? [i, j] : null);
    };
    canvas.onpointerleave = () => { readout.textContent = rest(); paintAll(null); };
  });
  readout.textContent = rest();
});

function rest() {
  return "Each row is a token and shows which earlier ones it looks at. Point at a cell to read both heads."
    + (data.cut ? " The last " + count(data.cut, "token") + " of the text were left out." : "");
}

function describe(i, j) {
  const shares = data.heads.map((head, at) => "head " + head + " " + (100 * data.maps[at][i][j]).toFixed(1) + " %");
  return "“" + visible(data.tokens[i]) + "” looks at “" + visible(data.tokens[j]) + "”: " + shares.join(", ");
}

onTheme(draw);
new ResizeObserver(later(draw, 100)).observe(element);
onValue((value) => { data = value; draw(); });
