"use strict";
// Curves from the page's own data, and the slider of pictures. Nothing is loaded.
const data = JSON.parse(document.getElementById("data").textContent);
const PALETTE = ["#d1495b", "#8e63c7", "#c98a1b", "#1a9e9e", "#b0568f", "#5a6ee0", "#8c6d46", "#7a8793"];
const KINDS = { real: "--good", teacher: "--link" }, DASHES = ["dash", "dot", "dashdot", "longdash"];
const FAINT = "40", all = (query) => [...document.querySelectorAll(query)];
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const control = (name) => document.getElementById(name);

// Plotly reads some HTML in names; those of strangers stay text.
const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");
const places = (x) => x.map((place) => (typeof place === "string" ? plain(place) : place));

// An exponential average without bias at its start; a gap stays a gap.
function smoothed(values, weight) {
  let mean = 0, total = 0;
  return values.map((value) => {
    if (value === null) return null;
    mean = weight * mean + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return mean / total;
  });
}

function spans(chart) {
  const values = [...chart.curves.flatMap((curve) => curve.y), ...chart.lines.map((line) => line.y)];
  const known = values.filter((value) => value !== null);
  return [Math.min(...known), Math.max(...known)];
}

function scaleOf(chart) {
  if (chart.kind) return "linear";
  const [low, high] = spans(chart);
  if (control("scale").value !== "auto") return control("scale").value;
  return low > 0 && high > 30 * low ? "log" : "linear";
}

// Runs by a key that varied: a dot each, neither joined nor smoothed.
function dots(chart) {
  return chart.curves.map((curve) => ({ x: places(curve.x), y: curve.y, type: "scatter", mode: "markers", name: plain(curve.name),
    marker: { color: PALETTE[curve.group % PALETTE.length], size: 9, opacity: 0.8 }, hovertemplate: "%{x}: %{y:.4~g}" }));
}

// A score by class: a bar each, or of many classes how many have which score.
function bars(chart) {
  const isCounts = chart.kind === "counts";
  return chart.curves.map((one) => ({ name: plain(one.name), ...(isCounts ? { x: one.y, nbinsx: 30 } : { x: places(one.x), y: one.y }),
    type: isCounts ? "histogram" : "bar", opacity: isCounts ? 0.6 : 1, marker: { color: inkOf(one.name) },
    hovertemplate: isCounts ? "%{x}: %{y} classes" : "%{y:.4~g}" }));
}

function inkOf(name) {
  const kind = KINDS[name.split(",")[0]];
  return kind ? colour(kind) : PALETTE[0];
}

function traces(chart) {
  if (chart.kind) return bars(chart);
  if (chart.axis) return dots(chart);
  const weight = Number(control("smoothing").value), named = new Set(), found = [];
  for (const curve of chart.curves) {
    const ink = PALETTE[curve.group % PALETTE.length], name = plain(curve.name || chart.title);
    const own = { x: curve.x, type: "scatter", mode: "lines", legendgroup: name };
    if (weight > 0) found.push({ ...own, y: curve.y, line: { color: ink + FAINT, width: 1 }, hoverinfo: "skip", showlegend: false });
    found.push({ ...own, y: smoothed(curve.y, weight), name, line: { color: ink, width: 2 }, marker: { size: 5 },
      mode: curve.x.length < 30 ? "lines+markers" : "lines", showlegend: !named.has(name), hovertemplate: "%{y:.4~g}" });
    named.add(name);
  }
  return [...found, ...references(chart)];
}

// Over all iterations, a lone one in the middle, with the points of the longest curve, so that hovering finds them.
function references(chart) {
  const longest = chart.curves.map((curve) => curve.x).reduce((one, other) => (other.length > one.length ? other : one), []);
  const steps = chart.curves.flatMap((curve) => curve.x), low = Math.min(...steps), high = Math.max(...steps);
  const reach = low / 2 || 1, x = low < high ? [low, ...longest, high] : [low - reach, low, low + reach];
  return chart.lines.map((line, i) => ({ x, y: x.map(() => line.y), name: plain(line.name), mode: "lines", type: "scatter",
    showlegend: chart.title === data.primary, hovertemplate: "%{y:.4~g}",
    line: { color: colour(KINDS[line.name.split(",")[0]] || "--faint"), width: 1.5, dash: DASHES[i % DASHES.length] } }));
}

function layout(chart) {
  const lines = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--line"), nticks: 7 };
  const isLog = scaleOf(chart) === "log", legend = legendRows(chart), room = nameRoom(chart);
  const isSpeed = chart.group === "Speed and memory";
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colour("--text"), size: 11 },
    barmode: chart.kind === "counts" ? "overlay" : "group", bargap: chart.kind === "counts" ? 0.05 : 0.3, bargroupgap: 0.05,
    margin: { l: 52, r: 12, t: 8, b: 20 + (room || 18) + (chart.kind ? 21 : 28) * legend }, hovermode: chart.axis && !chart.kind ? "closest" : "x unified",
    modebar: { bgcolor: "rgba(0,0,0,0)" },
    hoverlabel: { bgcolor: colour("--panel"), font: { color: colour("--text") } },
    xaxis: { ...lines, showgrid: !chart.kind, nticks: chart.kind === "bars" ? 30 : 7, tickangle: room ? -45 : "auto",
      title: { text: room ? "" : plain(chart.axis || "iteration"), standoff: 4 }, type: xScaleOf(chart), exponentformat: "power" },
    yaxis: { ...lines, type: isLog ? "log" : "linear", exponentformat: isSpeed ? "SI" : "power",
      rangemode: isSpeed ? "tozero" : "normal", dtick: isLog ? logTicks(chart) : undefined },
    showlegend: legend > 0, legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", font: { size: 10 } },
    // A finger that scrolls the page must not be taken for one that zooms.
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
  };
}

// Pixels for names of classes, which stand aslant below their bars; numbers need none.
function nameRoom(chart) {
  if (chart.kind !== "bars") return 0;
  const longest = Math.max(...chart.curves.flatMap((one) => one.x.map((name) => name.length)));
  return longest > 3 ? 4 * longest : 0;
}

// Numbers over several decades, e.g. learning rates, on a log axis; words are categories.
function xScaleOf(chart) {
  if (chart.kind === "counts") return "linear";
  if (!chart.axis) return control("steps").checked ? "log" : "linear";
  const values = chart.curves.flatMap((curve) => curve.x);
  if (values.some((value) => typeof value === "string")) return "category";
  return Math.min(...values) > 0 && Math.max(...values) > 30 * Math.min(...values) ? "log" : "linear";
}

// About how many lines the legend takes: a chart of one curve has none.
function legendRows(chart) {
  const isMain = chart.title === data.primary;
  const names = new Set([...chart.curves, ...(isMain ? chart.lines : [])].map((one) => one.name));
  if (names.size < 2 || (data.legends === "primary" && !isMain)) return 0;
  const width = [...names].reduce((sum, name) => sum + 60 + 6 * name.length, 0);
  return Math.ceil((1.2 * width) / (isMain ? Math.min(innerWidth - 60, 1150) : 340));
}

// Ticks at 1, 2 and 5 where an axis has few decades: else it might have none.
function logTicks(chart) {
  const [low, high] = spans(chart);
  return high > 1e3 * low ? undefined : "D2";
}

const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
const drawn = new Set();

function draw(plot) {
  const chart = data.charts[Number(plot.dataset.chart)];
  drawn.add(plot);
  Plotly.react(plot, traces(chart), layout(chart), CONFIG);
}

// Plotly lies compressed in the page; its hash is in the page's policy.
async function library() {
  const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (char) => char.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

async function curves() {
  if (!data.charts.length) return;
  await library();
  const seen = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (entry.isIntersecting && !drawn.has(entry.target)) draw(entry.target);
  }), { rootMargin: "300px" });
  all(".plot").forEach((plot) => seen.observe(plot));
  const again = () => drawn.forEach(draw);
  for (const name of ["smoothing", "scale", "steps"]) control(name).addEventListener("input", again);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  addEventListener("beforeprint", () => all(".plot").forEach(draw));
  document.documentElement.dataset.curves = "ready";
}

function slider() {
  const range = control("grid"), picture = control("grid-picture");
  if (!range) return;
  const show = () => {
    const one = data.grids[Number(range.value)];
    picture.src = one.picture;
    picture.alt = control("grid-name").textContent = `iteration ${one.iteration}`;
    range.setAttribute("aria-valuetext", picture.alt);
  };
  range.addEventListener("input", show);
  show();
}

slider();
curves();
