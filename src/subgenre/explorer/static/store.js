// The state that the parts share: the library, its points, the corrections, the current track.

import { get, put, remove } from "./api.js";
import { say } from "./dom.js";

const bus = new EventTarget();
export const on = (name, call) => bus.addEventListener(name, (event) => call(event.detail));
export const emit = (name, detail) => bus.dispatchEvent(new CustomEvent(name, { detail }));

export const WRONG = -2;
const cross = { colour: "var(--wrong)", outline: "M4 2 8 6 12 2 14 4 10 8 14 12 12 14 8 10 4 14 2 12 6 8 2 4Z" };

export const state = {
  library: null,
  points: null, // columns
  place: new Map(), // id -> position in the columns
  corrections: {},
  pending: false, // the map does not include all corrections
  current: null, // id, or null
};

export async function load() {
  const [library, points, corrections] = await Promise.all([get("/library"), get("/points"), get("/corrections")]);
  state.library = library;
  state.points = points;
  setCorrections(corrections);
  state.place = new Map(points.ids.map((id, i) => [id, i]));
}

function setCorrections({ corrections, pending }) {
  state.corrections = corrections;
  state.pending = pending;
}

export function pairIndex(genre, subgenre) {
  return state.library.labels.findIndex((l) => l.genre === genre && l.subgenre === subgenre);
}

// number of the label that a point is drawn with: the correction, or else the folder's
export function labelOf(i) {
  const correction = state.corrections[state.points.ids[i]];
  if (!correction) return state.points.label[i];
  return correction.wrong ? WRONG : pairIndex(correction.genre, correction.subgenre);
}

// number of points drawn with each label
export function countsOf() {
  const counts = new Map();
  state.points.ids.forEach((_, i) => counts.set(labelOf(i), (counts.get(labelOf(i)) || 0) + 1));
  return counts;
}

// label and text of a track's subgenre: the correction, or else the folder's
export function shownLabel({ id, genre, subgenre }) {
  const correction = state.corrections[id];
  if (!correction) return { label: state.library.labels[pairIndex(genre, subgenre)], text: subgenre };
  if (correction.wrong) return { label: cross, text: `${subgenre || "no subgenre"} (marked wrong)` };
  const label = state.library.labels[pairIndex(correction.genre, correction.subgenre)];
  return { label, text: `${correction.subgenre} (corrected)` };
}

export const crossed = (count) => ({ ...cross, subgenre: "marked wrong", count });

function titleOf(id) {
  const i = state.place.get(id);
  return i === undefined ? "" : state.points.titles[i];
}

export function lineOf(id) {
  const i = state.place.get(id);
  const label = state.library.labels[state.points.label[i]];
  return {
    id, title: state.points.titles[i], artist: state.points.artists[i],
    genre: label ? label.genre : "", subgenre: label ? label.subgenre : "", duration_s: 0,
  };
}

async function correct(change, message) {
  try {
    await change();
    setCorrections(await get("/corrections"));
    emit("corrected");
    say(message);
  } catch (problem) {
    say(problem.message, true);
  }
}

const path = (id) => `/corrections/${encodeURIComponent(id)}`;

export function moveTo(id, label) {
  const name = `${label.genre}/${label.subgenre}`;
  return correct(() => put(path(id), { subgenre: name }), `“${titleOf(id)}” is moved to ${label.subgenre}.${state.library.can_refit ? " Refit to see the effect." : ""}`);
}

export function markWrong(id) {
  return correct(() => put(path(id), { wrong: true }), `“${titleOf(id)}” is marked wrong.`);
}

export function undo(id) {
  return correct(() => remove(path(id)), `The correction of “${titleOf(id)}” is removed.`);
}
