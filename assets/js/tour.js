// Six stops of a first visit. A stop opens its tab and puts the focus on what to do there; doing it, however one got
// there, marks the stop. What is done and whether the tour was put away lives in this browser's localStorage.

const KEPT = "pv-tour", SETTLED_MS = 1200, ROOM_PX = 60;  // charts above a control come while the page scrolls to it
let at = null, lit = null;

function kept() {
  try { return {done: [], away: false, ...JSON.parse(localStorage.getItem(KEPT))}; } catch { return {done: [], away: false}; }
}

function keep(change) {
  localStorage.setItem(KEPT, JSON.stringify({...kept(), ...change}));
  draw();
}

// Only what can be seen: a tab that is not open is there, too.
function visible(selector) {
  return [...document.querySelectorAll(selector)].find((node) => node.getClientRects().length);
}

function light(node) {
  if (lit) lit.classList.remove("pv-here");
  lit = node;
  if (node) node.classList.add("pv-here");
}

function lead(stop, tries = 60) {
  if (at !== stop.id) return;
  if (stop.open && !visible(stop.focus)) visible(stop.open)?.click();
  const target = visible(stop.focus);
  if (!target && tries) { setTimeout(() => lead(stop, tries - 1), 150); return; }
  if (!target) return;
  light(target.closest(stop.around) || target);
  bring(target, stop.unfolds);
  target.focus({preventScroll: true});
  setTimeout(() => { if (at === stop.id && document.activeElement === target && !inSight(target)) bring(target, stop.unfolds); }, SETTLED_MS);
}

// Into the middle; what unfolds a list right below the words, at once: a list that finds no room below covers them.
function bring(target, unfolds) {
  if (!unfolds) { target.scrollIntoView({block: "center", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth"}); return; }
  target.style.scrollMarginTop = foot.offsetHeight + ROOM_PX + "px";
  target.scrollIntoView({block: "start", behavior: "instant"});
}

function inSight(target) {
  const place = target.getBoundingClientRect();
  return place.top >= foot.getBoundingClientRect().bottom && place.bottom <= innerHeight;
}

function go(stop) {
  at = stop.id;
  draw();
  const tab = window.pvTab(stop.tab);
  if (tab && tab.getAttribute("aria-selected") !== "true") tab.click();
  lead(stop);
}

function happened(event) {
  if (!(event.target instanceof Element) || event.type === "keydown" && event.key !== "Enter") return;
  const done = kept().done;
  if (done.length === STOPS.length && event.type === "click" && event.target.closest("[role=tab]")) { at = null; draw(); }
  for (const stop of STOPS) {
    if (done.includes(stop.id) || !stop.when[event.type] || !event.target.closest(stop.when[event.type])) continue;
    if (at === stop.id) light(null);
    at = stop.id;
    keep({done: [...done, stop.id]});
  }
}

function here() {
  const name = document.getElementById("pv-model");
  return name !== null && MODELS.includes(name.textContent);
}

function draw() {
  const {done, away} = kept(), stop = STOPS.find((each) => each.id === at), next = STOPS.find((each) => !done.includes(each.id));
  const shown = !away && here();
  if (!shown) light(null);
  box.hidden = !shown;
  box.classList.toggle("under-way", stop !== undefined);
  title.textContent = next ? "First visit: " + done.length + " of " + STOPS.length + " stops done" : "All " + STOPS.length + " stops are done";
  STOPS.forEach((each, index) => {
    const over = done.includes(each.id), button = buttons[index];
    button.textContent = (over ? "✓ " : index + 1 + " ") + each.title;
    button.setAttribute("aria-label", button.textContent + (over ? ", done" : ""));
    button.setAttribute("aria-current", each.id === at ? "step" : "false");
  });
  words.textContent = !stop ? "Each stop is something to do on this page. Begin with any." : done.includes(stop.id) ? stop.seen : stop.todo;
  onward.hidden = !next || next.id === at;
  onward.textContent = next && next.id === STOPS[0].id ? "Begin" : next ? "Next: " + next.title : "";
  skip.textContent = next ? "Skip the tour" : "Close";
}

const title = make("h2", {class: "pv-tour-title"});
const buttons = STOPS.map((stop) => make("button", {type: "button", class: "pv-stop", "data-stop": stop.id, onclick: () => go(stop)}));
const words = make("p", {class: "pv-tour-words", "aria-live": "polite"});
const onward = make("button", {type: "button", class: "pv-take", id: "tour-next", onclick: () => go(STOPS.find((stop) => !kept().done.includes(stop.id)))});
const skip = make("button", {type: "button", class: "pv-tool", id: "tour-skip", onclick: () => { at = null; keep({away: true}); }});
const stops = make("ol", {class: "pv-stops"}, ...buttons.map((button) => make("li", {}, button)));
const foot = make("div", {class: "pv-tour-head pv-tour-foot"}, words, onward);
const box = make("section", {class: "pv-tour", "aria-label": "First visit", hidden: true},
  make("div", {class: "pv-tour-head"}, title, skip),
  stops, foot);
element.replaceChildren(box);
const looking = new IntersectionObserver(([seen]) => box.classList.toggle("afar", !seen.isIntersecting));
looking.observe(stops);

const kinds = ["click", "change", "input", "keydown"], again = () => { at = null; keep({away: !kept().away}); };
for (const kind of kinds) document.addEventListener(kind, happened, true);
document.addEventListener("pv-tour", again);
const watcher = new MutationObserver(draw);
watcher.observe(document.getElementById("pv-model"), {childList: true, characterData: true, subtree: true});
onGone(() => {
  for (const kind of kinds) document.removeEventListener(kind, happened, true);
  document.removeEventListener("pv-tour", again);
  watcher.disconnect();
  looking.disconnect();
});
draw();
