// Between two subgenres: a slider along the line from one to the other, and the tracks nearest to its
// place. The server ranks them, as it does for a playlist along an axis, so that both give the same.

import { get } from "./api.js";
import { byId, make } from "./dom.js";
import { ring } from "./map.js";
import { adder, row } from "./rows.js";
import { on, state, tell } from "./store.js";

const SHOWN = 12; // as many as a track has neighbours; far down a list nothing is near any more
const panel = byId("axis");
let ends = null; // [number, number] of labels
let tracks = []; // of the last answer
let place = 0.5;
let asking = false, again = false;

export function start() {
  const labels = state.library.labels;
  if (labels.length < 2) {
    panel.replaceChildren(make("p", { class: "empty" }, "An axis needs two subgenres; this library has fewer."));
    return;
  }
  if (!ends || ends.some((n) => n >= labels.length)) ends = [0, 1];
  const choose = (which, words) => {
    const select = make("select", { "aria-label": words, onchange: () => { ends[which] = Number(select.value); load(); } },
      ...labels.map((label, i) => make("option", { value: i, selected: i === ends[which] }, label.subgenre)));
    return select;
  };
  const slider = make("input", { id: "slider", type: "range", min: -20, max: 120, step: 1, value: Math.round(100 * place), "aria-label": "Place between the two",
    oninput: () => { place = Number(slider.value) / 100; load(); } });
  panel.replaceChildren(
    make("p", { class: "soft" }, "From one subgenre to another: 0 is the middle of the first, 100 that of the second."),
    make("div", { class: "ends" }, choose(0, "From"), choose(1, "To")), slider,
    make("output", { id: "where", for: "slider" }),
    make("p", { class: "soft" }, "The tracks that sound most like this place, closest first, each with its cosine to it (1: the same). On the map they stand in square frames."),
    make("div", { id: "along" }, make("p", { class: "empty", role: "status" }, "Measuring")));
  if (!panel.hidden) load(); // a refit while it is looked at
}

on("corrected", () => { if (!panel.hidden && tracks.length) fill(); });

// One question at a time: the slider runs on meanwhile, and then only its last place is asked for.
export async function load() {
  const out = byId("along");
  if (!out) return;
  name()
  out.setAttribute("aria-busy", "true");
  again = true;
  if (asking) return;
  asking = true;
  while (again) {
    again = false;
    await ask();
  }
  asking = false;
  byId("along")?.removeAttribute("aria-busy");
}

async function ask() {
  const line = ends.map((n) => state.library.labels[n]).map((l) => `${l.genre}/${l.subgenre}`).join(":");
  try {
    const found = await get(`/axis/near?${new URLSearchParams({ name: line, at: place, k: SHOWN })}`);
    tracks = found.tracks.sort((a, b) => b.cosine - a.cosine); // the rank takes hubs out; a reader looks for the figure
    fill();
  } catch (problem) {
    tracks = [];
    byId("along")?.replaceChildren(make("p", { class: "empty bad" }, problem.message));
    if (!panel.hidden) ring("picked", []);
  }
}

function name() {
  const [from, to] = ends.map((n) => state.library.labels[n].subgenre);
  const words = `${Math.round(100 * place)} of 100 from ${from} to ${to}`;
  byId("where").textContent = words;
  byId("slider").setAttribute("aria-valuetext", words);
}

function fill() {
  const ids = tracks.map((t) => t.id);
  if (!panel.hidden) ring("picked", ids); // on another tab the map shows the list
  byId("along")?.replaceChildren(
    make("div", { class: "actions" }, make("button", { type: "button", onclick: () => tell("add", ids) }, `Add these ${ids.length}`)),
    make("ol", { class: "tracks" }, ...tracks.map((t) => row(t, make("small", { class: "num", title: "cosine to this place" }, t.cosine.toFixed(2)), adder(t)))));
}
