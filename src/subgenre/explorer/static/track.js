// The panel of one track: tags, placement, findings of the doctor, correction, neighbours.

import { get, trackPath } from "./api.js";
import { byId, clock, make, mark, percent } from "./dom.js";
import { DRAGGED } from "./legend.js";
import { ring } from "./map.js";
import { adder, row } from "./rows.js";
import { markWrong, moveTo, on, pairIndex, state, undo, emit, shownLabel } from "./store.js";

const panel = byId("track");
let shown = null; // { detail, near }
let latest = 0;

export function start() {
  panel.replaceChildren(make("p", { class: "empty" }, "Click a point of the map to play its track. Its placement and its neighbours then appear here."));
  on("corrected", async () => {
    if (shown && shown.detail.id) await open(shown.detail.id);
  });
}

export const neighbours = () => (shown ? shown.near : []);

export async function open(id) {
  const mine = ++latest;
  if (!shown || shown.detail.id !== id) panel.replaceChildren(make("p", { class: "empty", role: "status" }, "Loading its neighbours"));
  try {
    const [detail, near] = await Promise.all([get(trackPath(id)), get(trackPath(id, "/similar?k=12"))]);
    if (mine !== latest) return null;
    shown = { detail, near: near.tracks };
    draw(detail, near.tracks);
    ring("near", near.tracks.map((t) => t.id));
    return detail;
  } catch (problem) {
    if (mine === latest) {
      panel.replaceChildren(make("div", { class: "empty bad" }, make("p", {}, problem.message),
        make("button", { type: "button", onclick: () => open(id) }, "Try again")));
    }
    return null;
  }
}

export function openPlaced(placed) {
  latest++;
  shown = { detail: { id: null }, near: placed.neighbours };
  panel.replaceChildren(
    make("h2", {}, placed.name),
    make("p", { class: "soft" }, placed.known_as ? "This audio is in the library already." : "Not in the library; it is not kept."),
    placement(placed.placement, false),
    list("Most similar tracks", placed.neighbours));
  ring("near", placed.neighbours.map((t) => t.id));
}

function draw(detail, near) {
  const { label, text } = shownLabel(detail);
  const facts = [detail.album, detail.year || "", detail.tempo ? `${Math.round(detail.tempo)} bpm` : "",
    detail.key ? `${detail.camelot} (${detail.key})` : ""].filter(Boolean).join(" · ");
  const head = make("div", { class: "head", draggable: "true", title: "Drag it to a subgenre of the legend to move it" },
    make("h2", {}, detail.title), detail.artist ? make("p", {}, detail.artist) : "",
    make("p", { class: "soft" }, label ? mark(label) : "", ` ${text || "no subgenre"}`, facts ? ` · ${facts}` : ""),
    make("p", { class: "path" }, detail.path));
  head.addEventListener("dragstart", (event) => event.dataTransfer.setData(DRAGGED, detail.id));
  panel.replaceChildren(head,
    detail.there ? "" : make("p", { class: "notice" }, "Its file is missing. Index the library again."),
    make("div", { class: "actions" }, make("button", { type: "button", onclick: () => emit("add", [detail.id]) }, "Add to the list"),
      make("button", { type: "button", onclick: () => emit("add", [detail.id, ...near.map((t) => t.id)]) }, "Add it and its neighbours")),
    placement(detail.placement, detail.trained), doctor(detail.doctor), correction(detail),
    list("Neighbours", near));
}

function placement(placed, trained) {
  if (!placed) return "";
  const lead = placed.none_of_these
    ? "None of your subgenres: no track in them is similar enough."
    : "Fits, by its sound:";
  const bars = placed.chances.map((chance) => {
    const label = state.library.labels[pairIndex(chance.genre, chance.subgenre)];
    const fill = make("b");
    fill.style.width = `${Math.round(100 * chance.fits)}%`;
    const bar = make("i", { class: "meter", "aria-hidden": "true" }, fill); // the figure is beside it
    return make("li", {}, label ? mark(label) : make("i", { class: "dot" }), make("span", {}, chance.subgenre), bar, make("small", {}, percent(chance.fits)));
  });
  const typical = placed.chunk_start_s === null ? "" : make("p", { class: "soft" }, `Its most typical part begins at ${clock(placed.chunk_start_s)}.`);
  return make("section", {}, make("h3", {}, "Placement"), make("p", { class: placed.none_of_these ? "notice" : "soft" }, lead),
    make("ul", { class: "bars" }, ...bars), typical,
    trained ? make("p", { class: "soft" }, "The model was trained on this track, so these figures are too high.") : "");
}

function doctor(findings) {
  if (!findings.length) return "";
  const lines = findings.map((f) => make("li", {}, make("b", {}, f.kind), f.how_sure && ` (${f.how_sure} sure)`,
    make("small", {}, f.fit === null ? f.why : `By the frozen backbone it belongs to ${f.suggestion}, with probability ${percent(f.fit)}. Its nearest tracks:`),
    make("ol", { class: "tracks" }, ...f.nearest.map((t) => row(t, adder(t))))));
  return make("section", {}, make("h3", {}, "The doctor"), make("ul", { class: "doctor" }, ...lines));
}

function correction(detail) {
  if (detail.correction) {
    const { wrong, subgenre } = detail.correction;
    return make("section", { class: "correction" }, make("h3", {}, "Your correction"), make("p", {}, wrong ? "Marked wrong." : `Moved to ${subgenre}.`),
      make("button", { type: "button", onclick: () => undo(detail.id) }, "Undo"));
  }
  const hint = likely(detail);
  const select = make("select", { "aria-label": "Subgenre to move it to" },
    ...state.library.labels.map((label, i) => [label, i])
      .filter(([label]) => label.genre !== detail.genre || label.subgenre !== detail.subgenre)
      .map(([label, i]) => make("option", { value: i, selected: i === hint }, `${label.subgenre} (${label.genre})`)));
  return make("section", { class: "correction" }, make("h3", {}, "Wrong subgenre?"),
    make("div", { class: "actions" }, select,
      make("button", { type: "button", id: "move-to", onclick: () => select.value !== "" && moveTo(detail.id, state.library.labels[Number(select.value)]) }, "Move"),
      make("button", { type: "button", id: "wrong", onclick: () => markWrong(detail.id) }, "Mark wrong")));
}

// the subgenre to suggest: that of the doctor, else the most probable other one
function likely(detail) {
  const doctor = detail.doctor.find((f) => f.suggestion && f.kind === "wrong playlist");
  const named = doctor && state.library.labels.findIndex((l) => l.subgenre === doctor.suggestion);
  const other = detail.placement && detail.placement.chances.find((c) => c.subgenre !== detail.subgenre || c.genre !== detail.genre);
  return named >= 0 ? named : other ? pairIndex(other.genre, other.subgenre) : -1;
}

function list(name, tracks) {
  if (!tracks.length) return make("p", { class: "empty" }, "No similar tracks.");
  return make("section", {}, make("h3", {}, name), make("ol", { class: "tracks" }, ...tracks.map((t) => row(t, adder(t)))));
}
