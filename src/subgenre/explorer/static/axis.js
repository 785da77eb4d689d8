// Between two subgenres: a slider along the line from one to the other, and the tracks at its place.

import { get } from "./api.js";
import { byId, make } from "./dom.js";
import { ring } from "./map.js";
import { adder, row } from "./rows.js";
import { lineOf, on, state, tell } from "./store.js";

const SHOWN = 25;
const panel = byId("axis");
let ends = null; // [number, number] of labels
let positions = [];
let place = 0.5;
let asked = 0;

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
    oninput: () => { place = Number(slider.value) / 100; fill(); } });
  panel.replaceChildren(
    make("p", { class: "soft" }, "From one subgenre to another: 0 is the middle of the first, 100 that of the second."),
    make("div", { class: "ends" }, choose(0, "From"), choose(1, "To")), slider,
    make("output", { id: "where", for: "slider" }), make("div", { id: "along" }));
}

on("corrected", () => { if (!panel.hidden && positions.length) fill(); });

export async function load() {
  const mine = ++asked, out = byId("along");
  if (!out) return;
  const name = ends.map((n) => state.library.labels[n]).map((l) => `${l.genre}/${l.subgenre}`).join(":");
  out.replaceChildren(make("p", { class: "empty", role: "status" }, "Measuring"));
  try {
    const found = await get(`/axis?name=${encodeURIComponent(name)}`);
    if (mine !== asked) return;
    positions = found.positions;
    fill();
  } catch (problem) {
    if (mine === asked) out.replaceChildren(make("p", { class: "empty bad" }, problem.message));
  }
}

function fill() {
  const [from, to] = ends.map((n) => state.library.labels[n].subgenre);
  const words = `${Math.round(100 * place)} of 100 from ${from} to ${to}`;
  byId("where").textContent = words;
  byId("slider").setAttribute("aria-valuetext", words);
  const near = nearest();
  ring("picked", near.map((i) => state.points.ids[i]));
  const tracks = near.map((i) => ({ ...lineOf(state.points.ids[i]), at: positions[i] }));
  byId("along").replaceChildren(
    make("div", { class: "actions" }, make("button", { type: "button", onclick: () => tell("add", tracks.map((t) => t.id)) }, `Add these ${tracks.length}`)),
    make("ol", { class: "tracks" }, ...tracks.map((t) => row(t, make("small", { class: "num" }, String(Math.round(100 * t.at))), adder(t)))));
}

// the nearest places to the slider's, in the order of the axis
function nearest() {
  const away = (i) => Math.abs(positions[i] - place);
  const best = [];
  for (let i = 0; i < positions.length; i++) {
    if (best.length === SHOWN && away(i) >= away(best[SHOWN - 1])) continue;
    let at = best.length;
    while (at > 0 && away(best[at - 1]) > away(i)) at--;
    best.splice(at, 0, i);
    if (best.length > SHOWN) best.pop();
  }
  return best.sort((a, b) => positions[a] - positions[b]);
}
