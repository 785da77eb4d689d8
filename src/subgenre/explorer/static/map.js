// The map: WebGL points by subgenre, rings around chosen tracks, lasso, tooltip.

import { byId, calm, coarse, dark, make, styleOf } from "./dom.js";
import { WRONG, labelOf, lineOf, on, state, emit, shownLabel } from "./store.js";

const plot = byId("plot");
const tip = byId("tip");
const hidden = new Set(); // numbers of hidden labels
const rings = { current: [], near: [], picked: [] }; // ids
let traced = []; // { label, rows } of each trace
let placed = null; // a dropped file: { x, y, name }
let moving = null; // { x, y } while points move
let mode = coarse.matches ? false : "pan";

const ready = () => Boolean(plot.dataset.ready);

// the tracks by drawn label: [{ label, rows }]
export function groups() {
  const found = new Map();
  state.points.ids.forEach((_, i) => {
    const label = labelOf(i);
    if (!found.has(label)) found.set(label, []);
    found.get(label).push(i);
  });
  const order = [...state.library.labels.keys(), -1, WRONG];
  return order.filter((label) => found.has(label)).map((label) => ({ label, rows: found.get(label) }));
}

export const shown = (label) => !hidden.has(label);

export function look(label) {
  if (label === WRONG) return { symbol: "x-thin-open", colour: styleOf("--wrong") };
  return state.library.labels[label] || { symbol: "circle-open", colour: styleOf("--soft") };
}

// a shape of 3 pixels can't be recognised, and circles are three times as fast
const many = () => state.points.ids.length >= 30000;
const xs = () => (moving ? moving.x : state.points.x);
const ys = () => (moving ? moving.y : state.points.y);
const column = (values, rows) => Float32Array.from(rows, (i) => values[i]);

export function marks() {
  const n = state.points.ids.length;
  const size = n < 600 ? 9 : n < 6000 ? 7 : many() ? 3 : 5;
  return { size, opacity: n < 6000 ? (dark.matches ? 1 : 0.85) : 0.6 }; // faint marks are hard to see on a dark background
}

function traces() {
  const { size, opacity } = marks();
  const made = traced.map(({ label, rows }) => ({
    type: "scattergl", mode: "markers", hoverinfo: "none", visible: shown(label),
    x: column(xs(), rows), y: column(ys(), rows),
    marker: { symbol: many() && label !== WRONG ? "circle" : look(label).symbol, color: look(label).colour, size, opacity, line: { width: state.library.labels[label] ? 0 : 2, color: look(label).colour } },
  }));
  return [...made, ...overlays()];
}

function overlays() {
  const at = (ids) => ids.map((id) => state.place.get(id)).filter((i) => i !== undefined);
  const ring = (ids, symbol, size, width, colour) => ({
    type: "scatter", mode: "markers", hoverinfo: "skip",
    x: at(ids).map((i) => xs()[i]), y: at(ids).map((i) => ys()[i]),
    marker: { symbol, size, color: colour, line: { width, color: colour } },
  });
  return [ // squares for picked tracks: the colours of thin rings are hard to tell apart
    ring(rings.picked, "square-open", 15, 1.5, styleOf("--accent")),
    ring(rings.near, "circle-open", 14, 1.5, styleOf("--soft")),
    ring(rings.current, "circle-open", 19, 2.5, styleOf("--ink")),
    {
      type: "scatter", mode: "markers", hoverinfo: "skip",
      x: placed ? [placed.x] : [], y: placed ? [placed.y] : [],
      marker: { symbol: "star", size: 18, color: styleOf("--accent"), line: { width: 1.5, color: styleOf("--card") } },
    },
  ];
}

export function extent(values, other) {
  let low = Infinity, high = -Infinity;
  for (const v of values) { if (v < low) low = v; if (v > high) high = v; }
  if (other !== undefined) { low = Math.min(low, other); high = Math.max(high, other); }
  if (low > high) return [-1, 1];
  const edge = 0.06 * (high - low) || 1;
  return [low - edge, high + edge];
}

function layout() {
  return {
    margin: { l: 0, r: 0, t: 0, b: 0 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    showlegend: false, hovermode: "closest", hoverdistance: 14, dragmode: mode, uirevision: state.points.revision,
    xaxis: { visible: false, range: extent(state.points.x, placed?.x) },
    yaxis: { visible: false, range: extent(state.points.y, placed?.y), scaleanchor: "x" },
    newselection: { line: { color: styleOf("--accent"), width: 2, dash: "solid" } },
  };
}

// plotly draws WebGL at twice the screen's resolution; for many points, that is slow
const config = () => ({
  displayModeBar: false, scrollZoom: true, doubleClick: "reset",
  plotGlPixelRatio: many() ? Math.min(2, Math.max(1, devicePixelRatio)) : 2,
});

export async function draw() {
  if (!ready()) return;
  traced = groups();
  await Plotly.react(plot, traces(), layout(), config());
}

export async function start() {
  traced = groups();
  await Plotly.newPlot(plot, traces(), layout(), config());
  plot.on("plotly_click", (event) => {
    const id = idOf(event.points[0]);
    if (id) emit("choose", { id, play: true });
  });
  plot.on("plotly_hover", (event) => point(event));
  plot.on("plotly_unhover", () => { tip.hidden = true; });
  plot.on("plotly_selected", (event) => {
    if (!event || !event.points) return;
    const ids = event.points.map(idOf).filter(Boolean);
    clearSelection();
    if (ids.length) emit("lasso", [...new Set(ids)]);
  });
  dark.addEventListener("change", draw);
  on("corrected", draw);
  plot.dataset.ready = "true";
  follow();
}

// The player, which appears later, changes the size as well as the window does.
function follow() {
  let width = plot.clientWidth, height = plot.clientHeight;
  new ResizeObserver(() => {
    if (plot.clientWidth === width && plot.clientHeight === height) return;
    ({ clientWidth: width, clientHeight: height } = plot);
    Plotly.Plots.resize(plot);
  }).observe(plot);
}

function clearSelection() {
  const every = traced.map((_, i) => i);
  Plotly.update(plot, { selectedpoints: null }, { selections: [] }, every);
}

function idOf(hit) {
  const group = hit && traced[hit.curveNumber];
  return group ? state.points.ids[group.rows[hit.pointNumber]] : null;
}

function point(event) {
  const id = idOf(event.points[0]);
  if (!id || !event.event) return;
  name(state.place.get(id), event.event);
}

// show the name of a track beside the pointer
export function name(i, { clientX, clientY }) {
  const { text } = shownLabel(lineOf(state.points.ids[i]));
  tip.replaceChildren(
    make("b", {}, state.points.titles[i]),
    state.points.artists[i] ? make("span", {}, state.points.artists[i]) : "",
    make("span", { class: "soft" }, text || "no subgenre"),
  );
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const x = Math.min(clientX + 14, innerWidth - box.width - 8);
  const y = clientY + 16 + box.height > innerHeight ? clientY - box.height - 10 : clientY + 16;
  tip.style.left = `${Math.max(8, x)}px`;
  tip.style.top = `${y}px`;
}

function redrawRings() {
  if (!ready()) return;
  const made = overlays(), first = traced.length;
  Plotly.restyle(plot, { x: made.map((t) => t.x), y: made.map((t) => t.y) }, made.map((_, i) => first + i));
}

export function ring(which, ids) {
  rings[which] = ids;
  redrawRings();
}

export async function showPlaced(where) {
  placed = where;
  if (!ready()) return;
  if (where) await Plotly.react(plot, traces(), layout(), config());
  else redrawRings();
}

export function show(label, visible) {
  if (visible) hidden.delete(label);
  else hidden.add(label);
  if (ready()) Plotly.restyle(plot, { visible: traced.map((g) => shown(g.label)) }, traced.map((_, i) => i));
  else emit("shown");
}

export function setMode(name) {
  mode = mode === name ? false : name;
  byId("move").setAttribute("aria-pressed", String(mode === "pan"));
  byId("lasso").setAttribute("aria-pressed", String(mode === "lasso"));
  if (ready()) Plotly.relayout(plot, { dragmode: mode });
}

export function whole() {
  if (ready()) Plotly.relayout(plot, { "xaxis.range": extent(state.points.x, placed?.x), "yaxis.range": extent(state.points.y, placed?.y) });
}

// zoom out if a track is outside the visible part
export function reveal(id) {
  const i = state.place.get(id), full = plot._fullLayout;
  if (i === undefined || !ready()) return;
  for (const [axis, value] of [[full.xaxis, state.points.x[i]], [full.yaxis, state.points.y[i]]]) {
    const [low, high] = axis.range;
    if (value < Math.min(low, high) || value > Math.max(low, high)) { whole(); return; }
  }
}

// move every point from its old coordinates to its new ones
export async function travel(before) {
  const after = state.points;
  const was = after.ids.map((id) => before.get(id));
  if (calm.matches || after.ids.length > 3000) { await draw(); return; }
  const start = performance.now(), length = 900;
  const at = (now, k) => after[k].map((v, i) => (was[i] ? was[i][k] + (v - was[i][k]) * now : v));
  for (let share = 0; share < 1;) {
    share = Math.min(1, (performance.now() - start) / length);
    const eased = share * share * (3 - 2 * share);
    moving = share < 1 ? { x: at(eased, "x"), y: at(eased, "y") } : null;
    await draw();
    await new Promise(requestAnimationFrame);
  }
}
