// The legend: a button a subgenre, which shows and hides it and takes tracks that are dropped on it.

import { post } from "./api.js";
import { busy, byId, counted, make, mark } from "./dom.js";
import { show } from "./map.js";
import { moveTo, on, state, tell } from "./store.js";

const place = byId("labels");
export const DRAGGED = "text/x-subgenre-track";

export function start() {
  draw();
  byId("all").onclick = () => every(true);
  byId("none").onclick = () => every(false);
  byId("refit").onclick = refit;
  on("corrected", said);
  said();
}

export function draw() {
  const genres = new Map();
  state.library.labels.forEach((label, number) => {
    if (!genres.has(label.genre)) genres.set(label.genre, []);
    genres.get(label.genre).push(entry(label, number));
  });
  const bare = state.points.label.filter((n) => n < 0).length;
  const groups = [...genres].map(([genre, buttons]) => make("div", { class: "group" }, make("h3", {}, genre || "no genre"), ...buttons));
  if (bare) groups.push(make("div", { class: "group" }, make("h3", {}, "Not placed"), entry({ subgenre: "no subgenre", count: bare }, -1)));
  place.replaceChildren(...groups);
}

function entry(label, number) {
  const button = make("button", { type: "button", "aria-pressed": "true", "data-label": number, onclick: () => toggle(button) },
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
  const count = Object.keys(state.corrections).length;
  byId("said").hidden = !count;
  byId("refit").hidden = !state.library.can_refit;
  byId("said-count").textContent = `${counted(count, "correction")} kept. Your files stay as they are.`;
}

async function refit() {
  const done = await busy(byId("refit"), "Refitting", () => post("/refit"));
  if (done) tell("refitted", done);
}
