// What the parts of the page share: the library, its points, the corrections, the current track.

import { get, put, remove } from "./api.js";
import { say } from "./dom.js";

const bus = new EventTarget();
export const on = (name, call) => bus.addEventListener(name, (event) => call(event.detail));
export const tell = (name, detail) => bus.dispatchEvent(new CustomEvent(name, { detail }));

export const WRONG = -2;

export const state = {
  library: null,
  points: null, // columns
  place: new Map(), // id -> position in the columns
  corrections: {},
  current: null, // id, or null
};

export async function load() {
  const [library, points, said] = await Promise.all([get("/library"), get("/points"), get("/corrections")]);
  state.library = library;
  state.points = points;
  state.corrections = said.corrections;
  state.place = new Map(points.ids.map((id, i) => [id, i]));
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
    state.corrections = (await get("/corrections")).corrections;
    tell("corrected");
    say(words);
  } catch (problem) {
    say(problem.message, true);
  }
}

const path = (id) => `/corrections/${encodeURIComponent(id)}`;

export function moveTo(id, label) {
  const name = `${label.genre}/${label.subgenre}`;
  return said(() => put(path(id), { subgenre: name }), `“${titleOf(id)}” belongs to ${label.subgenre}. Refit to see what that changes.`);
}

export function markWrong(id) {
  return said(() => put(path(id), { wrong: true }), `“${titleOf(id)}” is marked wrong where it is.`);
}

export function takeBack(id) {
  return said(() => remove(path(id)), `Taken back for “${titleOf(id)}”.`);
}
