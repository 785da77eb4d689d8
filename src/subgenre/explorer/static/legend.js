// The legend: a button a subgenre, which shows and hides it and takes tracks that are dropped on it.

import { post } from "./api.js";
import { busy, byId, counted, make, mark } from "./dom.js";
import { show, shown } from "./map.js";
import { WRONG, countsOf, crossed, moveTo, on, state, tell } from "./store.js";

const place = byId("labels");
export const DRAGGED = "text/x-subgenre-track";
const NO_REFIT = "This map can't learn them: a refit takes the features of all tracks shown. Sort what was only indexed into the library's subgenre folders, run “subgenre preprocess LIBRARY”, then “subgenre train”, and open the new model.";

export function start() {
  byId("all").onclick = () => every(true);
  byId("none").onclick = () => every(false);
  byId("refit").onclick = refit;
  on("corrected", draw);
  draw();
}

export function draw() {
  const genres = new Map(), counts = countsOf();
  state.library.labels.forEach((label, number) => {
    if (!genres.has(label.genre)) genres.set(label.genre, []);
    genres.get(label.genre).push(entry({ ...label, count: counts.get(number) || 0 }, number));
  });
  const bare = counts.get(-1), wrong = counts.get(WRONG);
  const groups = [...genres].map(([genre, buttons]) => make("div", { class: "group" }, make("h3", {}, genre || "no genre"), ...buttons));
  if (bare || wrong) groups.push(make("div", { class: "group" }, make("h3", {}, "Not placed"),
    bare ? entry({ subgenre: "no subgenre", count: bare }, -1) : "", wrong ? entry(crossed(wrong), WRONG) : ""));
  place.replaceChildren(...groups);
  said();
}

function entry(label, number) {
  const button = make("button", { type: "button", "aria-pressed": String(shown(number)), "data-label": number, onclick: () => toggle(button) },
    label.outline ? mark(label) : make("i", { class: "dot" }), make("span", {}, label.subgenre), make("small", {}, String(label.count)));
  if (number >= 0) receive(button, label);
  return button;
}

function receive(button, label) {
  const ours = (event) => event.dataTransfer.types.includes(DRAGGED);
  button.addEventListener("dragover", (event) => {
    if (!ours(event)) return;
    event.preventDefault();
    button.classList.add("over");
  });
  button.addEventListener("dragleave", () => button.classList.remove("over"));
  button.addEventListener("drop", (event) => {
    button.classList.remove("over");
    if (!ours(event)) return;
    event.preventDefault();
    event.stopPropagation();
    moveTo(event.dataTransfer.getData(DRAGGED), label);
  });
}

function toggle(button) {
  const visible = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(visible));
  show(Number(button.dataset.label), visible);
}

function every(visible) {
  for (const button of place.querySelectorAll("button")) {
    if ((button.getAttribute("aria-pressed") === "true") !== visible) toggle(button);
  }
}

function said() {
  const count = Object.keys(state.corrections).length, { pending } = state, again = state.library.can_refit;
  const button = byId("refit");
  byId("said").hidden = !count && !(pending && again);
  button.hidden = !again;
  button.classList.toggle("main", pending);
  if (!button.hasAttribute("aria-busy")) button.disabled = !pending;
  const heard = pending ? "The map has not learnt your last word yet." : "The map has learnt what you said; correct another track to refit again.";
  byId("refit-note").textContent = again ? `${heard} A refit lasts until the explorer is stopped; corrections are kept.` : NO_REFIT;
  byId("said-count").textContent = count ? `${counted(count, "correction")} kept. Your files stay as they are.` : "What you said is taken back.";
}

async function refit() {
  const done = await busy(byId("refit"), "Refitting", () => post("/refit"));
  if (done) tell("refitted", done);
}
