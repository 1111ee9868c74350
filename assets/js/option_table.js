// A field for every option of a method; what differs from the preset is told as one JSON object.

let data = null, fields = new Map(), told = null, toldAt = 0;
const body = make("tbody"), all = make("button", {type: "button", class: "pv-tool", onclick: () => { reset(data.options); tell(); }}, "Back to the preset");
const head = make("tr", {}, ["Option", "Value", "Default"].map((title) => make("th", {scope: "col"}, title)));
element.replaceChildren(make("div", {class: "pv-options"}, make("table", {}, make("thead", {}, head), body), make("div", {class: "pv-tools"}, all)));

function written(value) {
  if (typeof value !== "number") return value === "" ? "none" : value === true ? "yes" : value === false ? "no" : String(value);
  return String(Number(value.toPrecision(4)));
}

function field(option) {
  const shared = {"aria-label": option.name, name: option.name, onchange: tell};
  const choices = option.kind === "flag" ? ["yes", "no"] : option.choices;
  if (choices.length) return make("select", shared, choices.map((choice) => make("option", {value: choice}, choice)));
  if (option.kind === "text") return make("input", {...shared, type: "text", placeholder: "none"});
  return make("input", {...shared, type: "text", inputmode: option.kind === "whole" ? "numeric" : "decimal"});
}

function build(options) {
  fields = new Map(options.map((option) => [option.name, field(option)]));
  body.replaceChildren(...options.map((option) => make("tr", {},
    make("th", {scope: "row"}, option.name, make("small", {}, meaning(option))),
    make("td", {}, fields.get(option.name)), make("td", {class: "pv-quiet"}))));
}

function meaning(option) {
  const numbers = option.low === null ? "" : " (" + written(option.low) + " to " + written(option.high) + ")";
  return option.meaning + numbers;
}

function fill(option, value) {
  const input = fields.get(option.name);
  if (option.kind === "flag") input.value = value ? "yes" : "no";
  else input.value = typeof value === "number" && value === option.preset ? written(value) : value;
}

function reset(options) { options.forEach((option) => fill(option, option.preset)); }

// An emptied number is what the preset says; what is no number is told as it stands, to be read or refused in words.
function value(option) {
  const input = fields.get(option.name);
  if (option.kind === "flag") return input.value === "yes";
  if (option.kind === "choice" || option.kind === "text") return input.value.trim();
  const text = input.value.trim(), number = Number(text.replace(",", "."));
  if (["", written(option.preset)].includes(text)) return option.preset;
  return Number.isNaN(number) ? text : number;
}

// What a criterion is told counts only while the training starts from it.
function counts(option) {
  return Object.entries(option.where).every(([name, wanted]) => fields.get(name).value.trim() === wanted);
}

function tell() {
  for (const option of data.options)
    if (["whole", "number"].includes(option.kind) && !fields.get(option.name).value.trim()) fill(option, option.preset);
  const own = data.options.filter((option) => counts(option) && value(option) !== option.preset);
  told = own.length ? JSON.stringify(Object.fromEntries(own.map((option) => [option.name, value(option)]))) : "";
  toldAt = Date.now();
  trigger("set", {options: told});
}

// What comes back may be older than what was typed meanwhile: then only the next answer counts.
function stale(found) {
  const waiting = told !== null && Date.now() - toldAt < 5000;
  if (waiting && found.own !== told) return true;
  told = null;
  return false;
}

onValue((found) => {
  const names = (one) => one && one.options.map((option) => option.name).join();
  if (names(found) !== names(data)) {
    told = null; // another method's options: what was told before is of no use
    build(found.options);
  } else if (stale(found)) return;
  data = found;
  all.textContent = data.preset ? "Back to the preset" : "Back to the defaults";
  found.options.forEach((option, at) => {
    const row = body.rows[at], preset = written(option.preset) === written(option.default) ? "" : ", " + data.preset + ": " + written(option.preset);
    if (document.activeElement !== fields.get(option.name)) fill(option, option.value);
    row.classList.toggle("own", option.own);
    row.lastChild.textContent = written(option.default) + preset;
  });
  all.disabled = !found.options.some((option) => option.own);
});
