// Drawings of our own as files: SVG, in the colours of the theme, PNG of it at twice the size, numbers as CSV.
// Text of models becomes text nodes of the SVG, which a serialiser escapes.

function shape(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) if (value !== "" && value !== null) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function sheet(width, height, ...children) {
  const ground = shape("rect", {width, height, fill: colour("panel")});
  return shape("svg", {width, height, viewBox: "0 0 " + width + " " + height}, ground, ...children);
}

// As much of a canvas' context as our drawings use: what is painted with it becomes an SVG.
class SvgBrush {
  constructor(width, height) {
    this.svg = sheet(width, height);
    Object.assign(this, {fillStyle: "", strokeStyle: "", globalAlpha: 1, lineWidth: 1, font: font(12), textAlign: "left", textBaseline: "alphabetic", at: "", stack: [], dash: "", path: ""});
  }

  add(tag, attributes, ...children) { this.svg.append(shape(tag, {transform: this.at, opacity: this.globalAlpha < 1 ? this.globalAlpha : "", ...attributes}, ...children)); }
  outline() { return {fill: "none", stroke: this.strokeStyle, "stroke-width": this.lineWidth, "stroke-dasharray": this.dash}; }
  save() { this.stack.push(this.at); }
  restore() { this.at = this.stack.pop(); }
  translate(x, y) { this.at += "translate(" + x + " " + y + ")"; }
  rotate(angle) { this.at += "rotate(" + 180 * angle / Math.PI + ")"; }
  setLineDash(dash) { this.dash = dash.join(" "); }
  beginPath() { this.path = ""; }
  moveTo(x, y) { this.path += "M" + x + " " + y; }
  lineTo(x, y) { this.path += "L" + x + " " + y; }
  // Circles only.
  arc(x, y, r) { this.path += "M" + (x + r) + " " + y + "a" + r + " " + r + " 0 1 1 " + -2 * r + " 0a" + r + " " + r + " 0 1 1 " + 2 * r + " 0"; }
  stroke() { this.add("path", {d: this.path, ...this.outline()}); }
  fill() { this.add("path", {d: this.path, fill: this.fillStyle}); }
  fillRect(x, y, width, height) { this.add("rect", {x, y, width, height, fill: this.fillStyle}); }
  strokeRect(x, y, width, height) { this.add("rect", {x, y, width, height, ...this.outline()}); }
  fillText(text, x, y) {
    const [size, ...family] = this.font.split(" "), anchor = {left: "start", center: "middle", right: "end"}[this.textAlign];
    this.add("text", {x, y, fill: this.fillStyle, "font-size": size, "font-family": family.join(" "), "text-anchor": anchor, "dominant-baseline": this.textBaseline === "middle" ? "central" : ""}, String(text));
  }
}

// A drawing that style sheets colour, with what they say written into it.
const WORN = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-size", "font-family", "font-weight", "paint-order"];

function dressed(svg) {
  const copy = svg.cloneNode(true), box = svg.viewBox.baseVal, own = svg.querySelectorAll("*");
  copy.querySelectorAll("*").forEach((node, index) => {
    const style = getComputedStyle(own[index]);
    for (const name of WORN) node.setAttribute(name, style.getPropertyValue(name));
    for (const name of ["class", "tabindex", "role"]) node.removeAttribute(name);
  });
  return sheet(box.width, box.height, ...copy.childNodes);
}

function download(blob, name) {
  const link = make("a", {href: URL.createObjectURL(blob), download: name});
  link.click();
  URL.revokeObjectURL(link.href);
}

async function saveDrawing(svg, name, kind) {
  const file = new Blob([new XMLSerializer().serializeToString(svg)], {type: "image/svg+xml"});
  if (kind === "svg") return download(file, name + ".svg");
  const picture = new Image(), address = URL.createObjectURL(file), canvas = make("canvas");
  picture.src = address;
  await picture.decode();
  [canvas.width, canvas.height] = [2 * picture.width, 2 * picture.height];
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(address);
  canvas.toBlob((png) => download(png, name + ".png"), "image/png");
}

// Buttons that save what `drawing()` returns and, where there are numbers, the rows of `numbers()`.
function saving(what, name, drawing, numbers) {
  const button = (kind, save) => make("button", {type: "button", class: "pv-save", "data-save": kind, "aria-label": "Download " + what + " as " + kind.toUpperCase(), onclick: save}, kind.toUpperCase());
  const rows = () => download(new Blob([numbers().map((row) => row.join(",")).join("\n") + "\n"], {type: "text/csv"}), name() + ".csv");
  return make("div", {class: "pv-saving"}, "Download as ", ["png", "svg"].map((kind) => button(kind, () => saveDrawing(drawing(), name(), kind))), numbers ? button("csv", rows) : []);
}
