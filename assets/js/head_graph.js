// The heads of one layer as a graph: an edge where two heads differ by less than tau. Edges are painted on a
// canvas, heads are buttons, so that they can be reached and read without a mouse.

const COMMUNITY = ["attention", "ffn", "residual", "good", "embedding", "warn"];

class HeadGraph {
  // `onPair(pair)` is told of the pair under the pointer or the keyboard, or null.
  constructor(onPair) {
    this.onPair = onPair;
    this.canvas = make("canvas", {"aria-hidden": "true"});
    this.nodes = make("div", {class: "pv-nodes", role: "group"});
    this.host = make("div", {class: "pv-graph"}, this.canvas, this.nodes);
    this.host.addEventListener("pointermove", (event) => this.hover(event));
    this.host.addEventListener("pointerleave", () => this.onPair(null));
  }

  // Draw a layer anew; `state` has d, heads, at, and what depends on tau: pairs, gone, community.
  show(state, label) {
    this.state = state;
    this.nodes.setAttribute("aria-label", label);
    if (this.nodes.childElementCount !== state.heads) this.buildNodes(state.heads);
    this.width = this.host.clientWidth || 460;
    this.size = Math.max(240, Math.min(this.width, 480));
    this.host.style.height = this.size + "px";
    this.place();
  }

  buildNodes(heads) {
    this.buttons = [...Array(heads).keys()].map((i) => make("button", {
      type: "button", class: "pv-node", tabindex: i ? -1 : 0, onfocus: () => this.onPair(this.nearest(i)),
      onpointerenter: () => { this.over = i; this.onPair(this.nearest(i)); }, onpointerleave: () => { this.over = null; },
    }, String(i)));
    this.nodes.replaceChildren(...this.buttons);
    rove(this.buttons, () => 1);
  }

  place() {
    const {at, heads, gone, community} = this.state;
    const radius = this.radius = heads > 40 ? 10 : heads > 20 ? 13 : 17, margin = radius + 6, room = this.size - 2 * margin;
    const left = (this.width - this.size) / 2;
    this.points = at.map(([x, y]) => [left + margin + x * room, margin + y * room]);
    const sizes = new Map();
    for (const own of community) sizes.set(own, (sizes.get(own) || 0) + 1);
    this.buttons.forEach((button, i) => {
      const own = community[i];
      dress(button, "left:" + this.points[i][0] + "px;top:" + this.points[i][1] + "px;width:" + 2 * radius + "px;height:" + 2 * radius
        + "px;font-size:" + (radius > 14 ? 13 : 10) + "px;--own:" + (own < 0 ? "var(--pv-quiet)" : "var(--pv-" + COMMUNITY[own % COMMUNITY.length] + ")"));
      button.classList.toggle("alone", own < 0);
      button.classList.toggle("gone", gone.has(i));
      const friends = sizes.get(own);
      button.setAttribute("aria-label", "Head " + i + (own < 0 ? ", similar to no other" : ", in a community of " + friends + " heads")
        + (gone.has(i) ? ", Algorithm 1 would remove it in favour of head " + gone.get(i) : ""));
    });
  }

  // Edges; `pair` is drawn strong whether or not it lies below tau.
  paint(pair) {
    if (this.state) this.paintEdges(context(this.canvas, this.width, this.size), pair);
  }

  paintEdges(brush, pair) {
    const {pairs, community} = this.state;
    const line = ([i, j], style, width, dash = []) => {
      brush.strokeStyle = style; brush.lineWidth = width; brush.setLineDash(dash); brush.beginPath();
      brush.moveTo(...this.points[i]); brush.lineTo(...this.points[j]); brush.stroke();
    };
    const faded = pairs.length > 300 ? 0.35 : 0.75;
    brush.globalAlpha = faded;
    brush.lineWidth = 1.6;
    strokeEdges(brush, pairs, community, (i) => this.points[i]);
    brush.globalAlpha = 1;
    if (!pair) return;
    line(pair, colour("text"), 2.6, this.state.below(pair) ? [] : [4, 4]);
  }

  // The whole graph for a file, where heads cannot be buttons.
  drawing(pair) {
    const brush = new SvgBrush(this.width, this.size), radius = this.radius;
    this.paintEdges(brush, pair);
    Object.assign(brush, {textAlign: "center", textBaseline: "middle", font: font(radius > 14 ? 13 : 10), lineWidth: 2});
    this.points.forEach(([x, y], i) => {
      const own = this.state.community[i], gone = this.state.gone.has(i), alone = own < 0;
      brush.strokeStyle = colour(gone ? "removed" : alone ? "line" : COMMUNITY[own % COMMUNITY.length]);
      brush.fillStyle = gone || alone ? colour("panel") : brush.strokeStyle;
      brush.setLineDash(gone ? [4, 3] : []);
      brush.beginPath(); brush.arc(x, y, radius - 1); brush.fill(); brush.stroke();
      brush.fillStyle = colour(gone ? "removed" : alone ? "text" : "panel");
      brush.fillText(i, x, y);
    });
    return brush.svg;
  }

  nearest(i) {
    const {d, heads} = this.state;
    let best = null;
    for (let j = 0; j < heads; j++)
      if (j !== i && (best === null || d[i * heads + j] < d[i * heads + best])) best = j;
    return best === null ? null : [i, best];
  }

  hover(event) {
    if (!this.state || this.over != null) return;
    const box = this.host.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    let best = null, near = 7;
    for (const pair of this.state.pairs) {
      const far = distance(x, y, this.points[pair[0]], this.points[pair[1]]);
      if (far < near) { near = far; best = pair; }
    }
    this.onPair(best);
  }
}

// One stroke for all edges of a colour: thousands of strokes are what takes long.
function strokeEdges(brush, pairs, community, point) {
  const byColour = new Map();
  for (const pair of pairs) {
    const own = COMMUNITY[community[pair[0]] % COMMUNITY.length];
    if (!byColour.has(own)) byColour.set(own, []);
    byColour.get(own).push(pair);
  }
  for (const [own, edges] of byColour) {
    brush.strokeStyle = colour(own);
    brush.beginPath();
    for (const [i, j] of edges) { brush.moveTo(...point(i)); brush.lineTo(...point(j)); }
    brush.stroke();
  }
}

// Writing a style costs even where it is the same.
function dress(node, style) {
  if (node.worn === style) return;
  node.worn = node.style.cssText = style;
}

function distance(x, y, [ax, ay], [bx, by]) {
  const dx = bx - ax, dy = by - ay, share = Math.max(0, Math.min(1, ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy || 1)));
  return Math.hypot(x - ax - share * dx, y - ay - share * dy);
}
