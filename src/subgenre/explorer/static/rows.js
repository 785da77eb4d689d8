// A track as a list item: play, name, subgenre, buttons.

import { clock, make, mark } from "./dom.js";
import { DRAGGED } from "./legend.js";
import { emit, shownLabel } from "./store.js";

export function row(track, ...buttons) {
  const { label, text } = shownLabel(track);
  const by = [track.artist, text, track.tempo ? `${Math.round(track.tempo)} bpm` : "", track.camelot || "", track.duration_s ? clock(track.duration_s) : ""].filter(Boolean).join(" · ");
  const item = make("li", { class: "track", draggable: "true", "data-id": track.id },
    make("button", { type: "button", class: "name", onclick: () => emit("choose", { id: track.id, play: true }), "aria-label": `Play ${track.title}${track.artist ? " by " + track.artist : ""}` },
      label ? mark(label) : make("i", { class: "dot" }),
      make("span", {}, make("b", {}, track.title), make("small", {}, by))),
    ...buttons);
  item.addEventListener("dragstart", (event) => {
    event.dataTransfer.setData(DRAGGED, track.id);
    event.dataTransfer.effectAllowed = "copyMove";
  });
  return item;
}

export function adder(track) {
  return make("button", { type: "button", class: "small", "aria-label": `Add ${track.title} to the list`, title: "Add to the list", onclick: () => emit("add", [track.id]) }, "+");
}
