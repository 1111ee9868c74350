// Helpers put in front of every component. `element`, `props`, `trigger` and `watch` come from Gradio.
// Text only ever reaches the page through textContent: names may come from a model.

const SVG = "http://www.w3.org/2000/svg";

function make(tag, attributes = {}, ...children) {
  const node = ["svg", "path", "circle"].includes(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children.flat()) node.append(child instanceof Node ? child : document.createTextNode(child));
  return node;
}

// The value is a JSON string, so that Gradio compares and copies one string and not thousands of numbers.
function onValue(draw) {
  const run = () => { if (props.value) draw(JSON.parse(props.value)); };
  watch("value", run);
  run();
}

// Row-major float32 numbers, sent as base64: the raw values, so hovering shows what was measured.
function decode(text) {
  return new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
}

// Reading a style is slow, so each colour is read once per theme.
const palette = new Map();
let family = null;

function colour(name) {
  if (!palette.has(name)) palette.set(name, getComputedStyle(document.body).getPropertyValue("--pv-" + name).trim() || "#888888");
  return palette.get(name);
}

function onTheme(redraw) {
  const observer = new MutationObserver(() => { palette.clear(); redraw(); });
  observer.observe(document.body, {attributes: true, attributeFilter: ["class"]});
  onGone(() => observer.disconnect());
}

// Call `work` once the element has left the page. Gradio does not say so; an element of our own inside it is told.
function onGone(work) {
  if (!customElements.get("pv-end")) customElements.define("pv-end", class extends HTMLElement {
    disconnectedCallback() { this.left(); }
  });
  const end = make("pv-end", {hidden: true});
  end.left = () => { if (!element.isConnected) work(); else if (!end.isConnected) element.append(end); };
  element.append(end);
}

function channels(hex) {
  const digits = hex.length === 4 ? [...hex.slice(1)].map((c) => c + c).join("") : hex.slice(1);
  return [0, 2, 4].map((at) => parseInt(digits.slice(at, at + 2), 16));
}

// A colour between two others, `share` from 0 to 1.
function mix(from, to, share) {
  const a = channels(from), b = channels(to);
  return "rgb(" + a.map((x, i) => Math.round(x + (b[i] - x) * share)).join(",") + ")";
}

function font(size) {
  family ||= getComputedStyle(element).fontFamily;
  return size + "px " + family;
}

// Size a canvas to its box in device pixels and return a context that draws in CSS pixels.
function context(canvas, width, height) {
  const scale = window.devicePixelRatio || 1;
  const wide = Math.round(width * scale), high = Math.round(height * scale);
  if (canvas.width !== wide || canvas.height !== high) {
    canvas.width = wide;
    canvas.height = high;
    canvas.style.cssText = "width:" + width + "px;height:" + height + "px";
  }
  const paint = canvas.getContext("2d");
  paint.setTransform(scale, 0, 0, scale, 0, 0);
  paint.clearRect(0, 0, width, height);
  return paint;
}

// Many calls within one frame become one.
function once(work) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; work(); });
  };
}

function later(work, milliseconds) {
  let timer = null;
  return (...given) => { clearTimeout(timer); timer = setTimeout(() => work(...given), milliseconds); };
}

function count(number, word) {
  return number.toLocaleString("en-US") + " " + word + (number === 1 ? "" : "s");
}

// The step that an arrow key asks for, e.g. [1, 0].
function arrow(event) {
  return {ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1]}[event.key] || [0, 0];
}

// The nearest of `places`, [node, x, y] each, that lies from (x, y) the way of [dx, dy]; what is aside counts four times.
function nearest(places, [x, y], [dx, dy]) {
  const far = ([, ox, oy]) => dx ? Math.abs(ox - x) + 4 * Math.abs(oy - y) : Math.abs(oy - y) + 4 * Math.abs(ox - x);
  const ahead = places.filter(([, ox, oy]) => dx ? (ox - x) * dx > 4 : (oy - y) * dy > 4);
  return ahead.sort((a, b) => far(a) - far(b))[0]?.[0];
}

// One tab stop for a set of buttons; the arrow keys move inside it. `columns` says how many make a row.
function rove(buttons, columns, choose) {
  const focus = (index) => {
    const target = buttons[index];
    if (!target || target.disabled) return;
    buttons.forEach((button, i) => { button.tabIndex = i === index ? 0 : -1; });
    target.focus();
    if (choose) choose(index);
  };
  buttons.forEach((button, index) => {
    button.addEventListener("keydown", (event) => {
      const step = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns()}[event.key];
      if (step === undefined) return;
      event.preventDefault();
      focus(index + step);
    });
  });
}
