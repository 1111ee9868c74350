"""The few lines of JavaScript that keep the address, the header and the theme in step. No server is asked."""

from __future__ import annotations

import json

from pruneviz.context import ADDRESS, DEFAULT_TAU, TABS

#: Runs before anything is drawn: the visitor's own choice of theme, if there is one, and links of the form
#: `<a data-go="runs" data-run="ID">`, which open a tab (and choose a run) without loading the page anew.
#: `<button data-csv="NAME">` downloads the table of the card around it. `pvTab(name)` is the button of a tab,
#: which on a narrow page may lie in Gradio's menu of those that find no room, without an id.
HEAD = (
    f"""<script>
window.pvTab = (name) => document.getElementById(`tab-${{name}}-button`)
  || [...document.querySelectorAll("#tabs .overflow-dropdown button")]
    .find((button) => button.textContent.trim() === {json.dumps(TABS)}[name]);
</script>"""
    + """<script>
(() => {
  const set = (id, value) => {
    const box = document.querySelector(`#${id} textarea, #${id} input`);
    if (!box || box.value === value) return;
    Object.getOwnPropertyDescriptor(Object.getPrototypeOf(box), "value").set.call(box, value);
    box.dispatchEvent(new Event("input", {bubbles: true}));
  };
  for (const kind of ["pointerdown", "keydown", "click"])
    document.addEventListener(kind, () => { window.pvWanted = null; }, {capture: true});
  document.addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest("[data-go]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    if (link.dataset.run !== undefined) set("url-run", link.dataset.run);
    const tab = window.pvTab(link.dataset.go);
    if (tab && tab.getAttribute("aria-selected") !== "true") tab.click();
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest("[data-csv]");
    const table = button && button.closest(".pv-card").querySelector("table");
    if (!table) return;
    const words = (cell) => [...cell.childNodes].map((n) => n.textContent.trim()).filter(Boolean).join(" ");
    const safe = (text) => text.replace(/^[=@]/, "'$&").replace(/\\s+/g, " ").replaceAll('"', '""');
    const lines = [...table.rows].map((row) => [...row.cells].map((c) => `"${safe(words(c))}"`).join(","));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\\n") + "\\n"], {type: "text/csv"}));
    link.download = button.dataset.csv;
    link.click();
    URL.revokeObjectURL(link.href);
  });
  document.addEventListener("focusin", (event) => {
    if (event.target.closest(".pv-number")) event.target.inputMode = "decimal";
  });
  const wanted = localStorage.getItem("pv-theme");
  if (wanted) {
    const apply = () => document.body.classList.toggle("dark", wanted === "dark");
    const watch = new MutationObserver(() => { if (!window.pvThemeTouched) apply(); });
    document.addEventListener("DOMContentLoaded", () => {
      apply();
      watch.observe(document.body, {attributes: true, attributeFilter: ["class"]});
      setTimeout(() => watch.disconnect(), 5000);
    });
  }
})();
</script>"""
)
TOGGLE_THEME = """() => {
  window.pvThemeTouched = true;
  const dark = document.body.classList.toggle("dark");
  localStorage.setItem("pv-theme", dark ? "dark" : "light");
  document.dispatchEvent(new CustomEvent("pv-theme", {detail: dark ? "dark" : "light"}));
}"""
#: What stands at its default is left out, so addresses stay short; units too many for one wait in this tab.
WRITE_URL = f"""(...values) => {{
  if (!window.pvRestored) return;
  const named = Object.fromEntries({json.dumps(list(ADDRESS))}.map((key, i) => [key, values[i]]));
  const label = document.getElementById("pv-model");
  if (label) {{ label.textContent = named.model; label.title = named.model; }}
  const query = new URLSearchParams(location.search), many = named.units && named.units.length > 3000;
  if (many) sessionStorage.setItem("pv-units", named.units);
  if (many) named.units = "kept";
  for (const [key, value] of Object.entries(named)) if (value) query.set(key, value); else query.delete(key);
  history.replaceState(null, "", "?" + query.toString());
}}"""
#: Units belong to a model: another one starts without any.
FORGET_UNITS = """(model, units) => {
  const other = window.pvModel !== undefined && window.pvModel !== model;
  window.pvModel = model;
  return other ? "" : units;
}"""


def open_tab(name: str, unless: str = "") -> str:
    """Open a tab as a click on its title does; not where the input named `unless` says something."""
    click = f'window.pvTab("{name}").click()'
    return f"({unless}) => {{ if (!{unless}) {click}; }}" if unless else f"() => {click}"


def pause_unless(name: str) -> str:
    """Stop a clock when this tab is left; coming back starts it again if there is something to wait for."""
    return f'(tab) => tab === "{name}" ? {{__type__: "update"}} : {{__type__: "update", active: false}}'


def restore(model: str) -> str:
    """Read the address once: the values of the url boxes, then the tab to open."""
    return f"""() => {{
  const query = new URLSearchParams(location.search), known = {json.dumps(list(TABS))};
  const tab = known.includes(query.get("tab")) ? query.get("tab") : known[0];
  const model = query.get("model") || {json.dumps(model)};
  const units = query.get("units") === "kept" ? sessionStorage.getItem("pv-units") : query.get("units");
  window.pvRestored = true;
  window.pvModel = model;
  if (tab !== known[0]) window.pvWanted = tab;
  const label = document.getElementById("pv-model");
  if (label) {{ label.textContent = model; label.title = model; }}
  const first = {{tab, model, units, tau: query.get("tau") || {json.dumps(DEFAULT_TAU)}}};
  const value = (key) => key in first ? first[key] || "" : query.get(key) || "";
  return [...{json.dumps(list(ADDRESS))}.map(value), {{__type__: "update", selected: tab}}];
}}"""


def select_tab(name: str) -> str:
    """What the hidden tab box holds once a tab is opened; nothing before the address has been read.

    Gradio reports the first tab as opened some time while the page loads; that must not overrule the
    address. So the page itself is asked which tab is open.
    """
    return f"""() => {{
  const name = {json.dumps(name)};
  if (!window.pvRestored) return "";
  if (window.pvWanted) return window.pvWanted;
  const open = document.querySelector('#tabs button[role="tab"][aria-selected="true"]');
  const shown = open && open.id.match(/^tab-(.+)-button$/);
  return shown ? shown[1] : name;
}}"""


def while_open(name: str) -> str:
    """Another value than before if this tab is open. The page itself is asked, as in `select_tab`."""
    return f"""(tab, before) => {{
  const open = document.querySelector('#tabs button[role="tab"][aria-selected="true"]');
  const shown = open ? open.id : `tab-${{tab}}-button`;
  return shown === {json.dumps(f"tab-{name}-button")} ? String(performance.now()) : before;
}}"""
