// What the parts of the page share: the library, its points, the corrections, the current track.

import { get, put, remove } from "./api.js";
import { say } from "./dom.js";

const bus = new EventTarget();
export const on = (name, call) => bus.addEventListener(name, (event) => call(event.detail));
export const tell = (name, detail) => bus.dispatchEvent(new CustomEvent(name, { detail }));

export const WRONG = -2;
const cross = { colour: "var(--wrong)", outline: "M4 2 8 6 12 2 14 4 10 8 14 12 12 14 8 10 4 14 2 12 6 8 2 4Z" };

export const state = {
  library: null,
  points: null, // columns
  place: new Map(), // id -> position in the columns
  corrections: {},
  pending: false, // corrections that the map has not learnt
  current: null, // id, or null
};

export async function load() {
  const [library, points, said] = await Promise.all([get("/library"), get("/points"), get("/corrections")]);
  state.library = library;
  state.points = points;
  hear(said);
  state.place = new Map(points.ids.map((id, i) => [id, i]));
}

function hear({ corrections, pending }) {
  state.corrections = corrections;
  state.pending = pending;
}

export const labelName = (label) => (label ? label.subgenre : "");

export function pairIndex(genre, subgenre) {
  return state.library.labels.findIndex((l) => l.genre === genre && l.subgenre === subgenre);
}

// number of the label a point is drawn with: the person's word before the folder's
export function labelOf(i) {
  const said = state.corrections[state.points.ids[i]];
  if (!said) return state.points.label[i];
  return said.wrong ? WRONG : pairIndex(said.genre, said.subgenre);
}

// how many points are drawn with each label
export function countsOf() {
  const found = new Map();
  state.points.ids.forEach((_, i) => found.set(labelOf(i), (found.get(labelOf(i)) || 0) + 1));
  return found;
}

// mark and words of the subgenre of a track: the person's word before the folder's
export function wordOf({ id, genre, subgenre }) {
  const said = state.corrections[id];
  if (said && said.wrong) return { label: cross, words: `${subgenre || "no subgenre"} (you said: wrong)` };
  if (said) return { label: state.library.labels[pairIndex(said.genre, said.subgenre)], words: `${said.subgenre} (you said so)` };
  return { label: state.library.labels[pairIndex(genre, subgenre)], words: subgenre };
}

export const crossed = (count) => ({ ...cross, subgenre: "marked wrong", count });

export function titleOf(id) {
  const i = state.place.get(id);
  return i === undefined ? "" : state.points.titles[i];
}

export function lineOf(id) {
  const i = state.place.get(id);
  const label = state.library.labels[state.points.label[i]];
  return {
    id, title: state.points.titles[i], artist: state.points.artists[i],
    genre: label ? label.genre : "", subgenre: labelName(label), duration_s: 0,
  };
}

async function said(change, words) {
  try {
    await change();
    hear(await get("/corrections"));
    tell("corrected");
    say(words);
  } catch (problem) {
    say(problem.message, true);
  }
}

const path = (id) => `/corrections/${encodeURIComponent(id)}`;

export function moveTo(id, label) {
  const name = `${label.genre}/${label.subgenre}`;
  return said(() => put(path(id), { subgenre: name }), `“${titleOf(id)}” belongs to ${label.subgenre}.${state.library.can_refit ? " Refit to see what that changes." : ""}`);
}

export function markWrong(id) {
  return said(() => put(path(id), { wrong: true }), `“${titleOf(id)}” is marked wrong where it is.`);
}

export function takeBack(id) {
  return said(() => remove(path(id)), `Taken back for “${titleOf(id)}”.`);
}
