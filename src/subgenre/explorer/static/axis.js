// A slider along the line between two subgenres, and the tracks nearest to its position. The server
// ranks them as for a playlist along an axis.

import { get } from "./api.js";
import { byId, make } from "./dom.js";
import { ring } from "./map.js";
import { adder, row } from "./rows.js";
import { on, state, emit } from "./store.js";

const SHOWN = 12; // as many as the neighbours of a track
const panel = byId("axis");
let ends = null; // [number, number] of labels
let tracks = []; // of the last answer
let position = 0.5;
let loading = false, stale = false;

export function start() {
  const labels = state.library.labels;
  if (labels.length < 2) {
    panel.replaceChildren(make("p", { class: "empty" }, "An axis needs two subgenres; this library has fewer."));
    return;
  }
  if (!ends || ends.some((n) => n >= labels.length)) ends = [0, 1];
  const choose = (which, name) => {
    const select = make("select", { "aria-label": name, onchange: () => { ends[which] = Number(select.value); load(); } },
      ...labels.map((label, i) => make("option", { value: i, selected: i === ends[which] }, label.subgenre)));
    return select;
  };
  const slider = make("input", { id: "slider", type: "range", min: -20, max: 120, step: 1, value: Math.round(100 * position), "aria-label": "Position between the two",
    oninput: () => { position = Number(slider.value) / 100; load(); } });
  panel.replaceChildren(
    make("p", { class: "soft" }, "From one subgenre to another: 0 is the centre of the first, 100 that of the second."),
    make("div", { class: "ends" }, choose(0, "From"), choose(1, "To")), slider,
    make("output", { id: "where", for: "slider" }),
    make("p", { class: "soft" }, "The tracks most similar to this point, with their cosine to it (1: the same). Square frames mark them on the map."),
    make("div", { id: "along" }, make("p", { class: "empty", role: "status" }, "Searching")));
  if (!panel.hidden) load(); // after a refit
}

on("corrected", () => { if (!panel.hidden && tracks.length) fill(); });

// One request at a time; if the slider moves meanwhile, only its last position is requested next.
export async function load() {
  const out = byId("along");
  if (!out) return;
  showPosition();
  out.setAttribute("aria-busy", "true");
  stale = true;
  if (loading) return;
  loading = true;
  while (stale) {
    stale = false;
    await search();
  }
  loading = false;
  byId("along")?.removeAttribute("aria-busy");
}

async function search() {
  const line = ends.map((n) => state.library.labels[n]).map((l) => `${l.genre}/${l.subgenre}`).join(":");
  try {
    const answer = await get(`/axis/near?${new URLSearchParams({ name: line, at: position, k: SHOWN })}`);
    tracks = answer.tracks.sort((a, b) => b.cosine - a.cosine); // by the figure that is shown
    fill();
  } catch (problem) {
    tracks = [];
    byId("along")?.replaceChildren(make("p", { class: "empty bad" }, problem.message));
    if (!panel.hidden) ring("picked", []);
  }
}

function showPosition() {
  const [from, to] = ends.map((n) => state.library.labels[n].subgenre);
  const text = `${Math.round(100 * position)} of 100 from ${from} to ${to}`;
  byId("where").textContent = text;
  byId("slider").setAttribute("aria-valuetext", text);
}

function fill() {
  const ids = tracks.map((t) => t.id);
  if (!panel.hidden) ring("picked", ids); // on other tabs the map marks the list
  byId("along")?.replaceChildren(
    make("div", { class: "actions" }, make("button", { type: "button", onclick: () => emit("add", ids) }, `Add these ${ids.length}`)),
    make("ol", { class: "tracks" }, ...tracks.map((t) => row(t, make("small", { class: "num", title: "cosine to this point" }, t.cosine.toFixed(2)), adder(t)))));
}
