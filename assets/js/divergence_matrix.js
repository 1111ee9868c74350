// The divergences of one layer as a heat map; what lies below tau wears a dot. Arrow keys move a cursor.

class DivergenceMatrix {
  constructor(onPair) {
    this.onPair = onPair;
    this.canvas = make("canvas", {tabindex: 0, role: "img", onkeydown: (event) => this.key(event), onfocus: () => this.onPair(this.pair)});
    this.legend = make("canvas", {"aria-hidden": "true"});
    this.low = make("span"); this.high = make("span");
    this.host = make("div", {class: "pv-matrix"}, this.canvas, make("div", {class: "pv-legend"}, this.low, this.legend, this.high));
    this.canvas.addEventListener("pointermove", (event) => this.hover(event));
    this.canvas.addEventListener("pointerleave", () => this.onPair(null));
    this.pair = [0, 1];
  }

  // `most` is the largest divergence of all layers, so that colours mean the same in each.
  show(state, most, label) {
    this.state = state; this.most = most;
    const size = Math.max(240, Math.min(this.host.clientWidth || 460, 480));
    this.margin = 24;
    this.cell = Math.max(4, Math.floor((size - this.margin) / state.heads));
    this.canvas.setAttribute("aria-label", label);
    this.low.textContent = "0 alike"; this.high.textContent = most.toFixed(2) + " different";
  }

  shade(value) {
    if (!Number.isFinite(value)) return colour("line");
    return mix(colour("accent"), colour("sunken"), Math.sqrt(Math.min(1, value / this.most)));
  }

  paint(pair) {
    if (!this.state) return;
    const brush = context(this.canvas, this.side, this.side);
    brush.drawImage(this.cells(), 0, 0, this.side, this.side);
    this.paintMarks(brush, pair);
    this.paintLegend();
  }

  get side() { return this.margin + this.cell * this.state.heads + 2; }
  get gap() { return this.cell > 12 ? 1 : 0; }

  // The matrix for a file.
  drawing(pair) {
    const brush = new SvgBrush(this.side, this.side);
    this.paintCells(brush);
    this.paintMarks(brush, pair);
    return brush.svg;
  }

  // What moves with tau and the pointer.
  paintMarks(brush, pair) {
    const {heads} = this.state, {cell, margin, gap} = this;
    const radius = Math.max(1.2, Math.min(4, cell / 7)), middle = margin + (cell - gap) / 2;
    brush.fillStyle = colour("text"); brush.beginPath();
    for (let i = 0; i < heads; i++)
      for (let j = 0; j < heads; j++) if (i !== j && this.state.below([i, j])) {
        const x = middle + j * cell, y = middle + i * cell;
        brush.moveTo(x + radius, y); brush.arc(x, y, radius, 0, 7);
      }
    brush.fill();
    this.numbers(brush);
    if (pair) for (const [i, j] of [pair, [pair[1], pair[0]]]) {
      brush.strokeStyle = colour("text"); brush.lineWidth = 2;
      brush.strokeRect(margin + j * cell, margin + i * cell, cell - gap, cell - gap);
    }
  }

  // The colours, which do not move with tau: painted once per layer, size and theme.
  cells() {
    const {d} = this.state, {side} = this, tint = colour("accent") + side + " " + (window.devicePixelRatio || 1);
    if (this.painted && this.painted.d === d && this.painted.tint === tint) return this.painted.canvas;
    const canvas = make("canvas");
    this.paintCells(context(canvas, side, side));
    this.painted = {d, tint, canvas};
    return canvas;
  }

  paintCells(brush) {
    const {d, heads} = this.state, {cell, margin, gap} = this;
    for (let i = 0; i < heads; i++)
      for (let j = 0; j < heads; j++) {
        brush.fillStyle = i === j ? colour("page") : this.shade(d[i * heads + j]);
        brush.fillRect(margin + j * cell, margin + i * cell, cell - gap, cell - gap);
      }
  }

  numbers(brush) {
    const {heads} = this.state, {cell, margin} = this, every = Math.ceil(16 / cell), gone = this.state.gone;
    brush.font = font(11); brush.textAlign = "center"; brush.textBaseline = "middle";
    for (let i = 0; i < heads; i += every) {
      brush.fillStyle = gone.has(i) ? colour("removed") : colour("quiet");
      brush.fillText(i, margin / 2, margin + (i + 0.5) * cell);
      brush.fillText(i, margin + (i + 0.5) * cell, margin / 2);
    }
  }

  paintLegend() {
    const brush = context(this.legend, 140, 10);
    for (let x = 0; x < 140; x++) { brush.fillStyle = this.shade(this.most * x / 139); brush.fillRect(x, 0, 1, 10); }
  }

  hover(event) {
    if (!this.state) return;
    const j = Math.floor((event.offsetX - this.margin) / this.cell), i = Math.floor((event.offsetY - this.margin) / this.cell);
    const inside = i >= 0 && j >= 0 && i < this.state.heads && j < this.state.heads && i !== j;
    this.onPair(inside ? [i, j] : null);
  }

  key(event) {
    const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
    if (!step || !this.state) return;
    event.preventDefault();
    this.pair = this.pair.map((at, k) => Math.max(0, Math.min(this.state.heads - 1, at + step[k])));
    this.onPair(this.pair[0] === this.pair[1] ? null : this.pair);
  }
}
