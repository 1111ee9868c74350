// A Plotly figure that keeps its zoom when data comes in, follows light and dark, and reports clicks.
// Gradio has a Plotly of its own as window.Plotly; ours is loaded beside it and leaves that name alone.

const host = make("div", {class: "pv-plot"});
element.replaceChildren(host);
let figure = null, library = null, waiting = false;

// The file leaves itself in window.moduleName too, which nothing else uses.
function loadLibrary() {
  window.pvPlotly ||= new Promise((done, failed) => {
    const before = window.Plotly, source = (window.gradio_config?.root || "") + "/gradio_api/file=" + libraryFile;
    document.head.append(make("script", {
      src: source, onerror: () => failed(new Error("its drawing library could not be read")),
      onload: () => {
        const own = window.moduleName;
        delete window.moduleName;
        if (window.Plotly === own && before) window.Plotly = before;
        else if (window.Plotly === own) delete window.Plotly;
        done(own);
      },
    }));
  });
  return window.pvPlotly;
}

// Figures name colours as var(--pv-...); Plotly wants plain ones.
function resolve(value) {
  if (typeof value === "string") return value.replace(/var\(--pv-([a-z-]+)\)/g, (_, name) => colour(name));
  if (Array.isArray(value)) return value.map(resolve);
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, resolve(v)]));
  return value;
}

// Marks that a figure wants at every so many layers, further apart where their numbers would overlap.
function spaced({range, dtick}) {
  const marks = range && dtick > 0 ? (range[1] - range[0]) / dtick : 0, room = Math.max(2, Math.floor((host.offsetWidth - 90) / 24));
  return marks > room ? {dtick: dtick * Math.ceil(marks / room)} : {};
}

// Names in a legend, which go on in the next line where the chart is narrower than they are.
function legible(data) {
  const room = Math.max(12, Math.floor((host.offsetWidth - 110) / 7)), line = new RegExp(`.{1,${room - 1}}([ _·:/-]|$)|.{1,${room}}`, "gu");
  return data.map((trace) => trace.name?.length > room ? {...trace, name: trace.name.match(line).map((part) => part.trim()).join("<br>")} : trace);
}

function themed(layout) {
  const axis = {gridcolor: colour("line"), zerolinecolor: colour("line"), linecolor: colour("line"), tickcolor: colour("line")};
  const axes = Object.fromEntries(Object.entries(layout).filter(([key]) => /^[xy]axis/.test(key)).map(([key, own]) => [key, {...axis, ...own, ...(key.startsWith("x") ? spaced(own) : {})}]));
  const letters = getComputedStyle(element).fontFamily;
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", uirevision: "keep", autosize: true,
    modebar: {bgcolor: "rgba(0,0,0,0)", color: colour("quiet"), activecolor: colour("accent")},
    hoverlabel: {bgcolor: colour("panel"), bordercolor: colour("line"), font: {color: colour("text"), family: letters}},
    ...layout, ...axes, font: {color: colour("text"), family: letters, size: 13, ...(layout.font || {})},
  };
}

// Plotly writes the address of the page into its clip paths; tabs change the address, and what is inside would vanish.
function stayDrawn() {
  host._context._baseUrl = "";
  host.querySelectorAll("[clip-path]").forEach((part) => part.setAttribute("clip-path", part.getAttribute("clip-path").replace(/^url\('[^#]*(#.*)'\)$/, "url($1)")));
}

// The library's own button for a PNG is told a name once for all, and the figure of another run has another.
const picture = (format, scale, path) => ({
  name: format, title: "Download plot as " + format.toUpperCase(), icon: {width: 24, height: 24, path},
  click: (plot) => library.downloadImage(plot, {format, scale, filename: figure.name}),
});
// Always the same object: another one would have the library begin anew and forget who listens for clicks.
const CONFIG = {
  displaylogo: false, modeBarButtonsToRemove: ["toImage", "select2d", "lasso2d", "sendChartToCloud"],
  modeBarButtonsToAdd: [
    picture("png", 2, "M9 4l-1.8 2H4v14h16V6h-3.2L15 4zm3 13a4.5 4.5 0 1 1 0-9 4.5 4.5 0 0 1 0 9z"),
    picture("svg", 1, "M5 3h14v12h-5l-2 3-2-3H5zM4 20h16v2H4z"),
  ],
};

// What nobody sees is not drawn: a hidden page has no frames, and a hidden chart is drawn once it is shown.
async function draw() {
  waiting = Boolean(figure) && !host.offsetWidth;
  if (!figure || waiting) return;
  try {
    library = await loadLibrary();
  } catch (error) {
    host.textContent = "The chart cannot be drawn: " + error.message + ". Reload the page.";
    return;
  }
  if (!host.isConnected) return;
  host.style.height = (figure.layout.height || 380) + "px";
  host.setAttribute("role", "group");  // an image may hold nothing to click, and its legend and buttons are that
  host.setAttribute("aria-roledescription", "chart");
  host.setAttribute("aria-label", figure.layout.meta?.description || "Chart");
  const first = !host.data;
  await library.react(host, legible(resolve(figure.data)), themed(resolve(figure.layout)), CONFIG);
  stayDrawn();
  if (first) host.on("plotly_click", ({points}) => {
    const {x, y, curveNumber, customdata} = points[0];
    trigger("pick", {x, y, curve: curveNumber, customdata});
  });
}

const soon = once(draw);
const size = new ResizeObserver(() => {
  if (waiting) soon(); else if (library && host.data && host.offsetWidth) library.Plots.resize(host);
});
size.observe(host);
onGone(() => {
  size.disconnect();
  if (library && host.data) library.purge(host);
});
loadLibrary().catch(() => {});  // while the data is on its way; draw() says what went wrong
onTheme(soon);
onValue((value) => { figure = value; soon(); });
