// The legend: a button for each subgenre shows or hides it, and takes tracks dropped on it.

import { get, post } from "./api.js";
import { busy, byId, counted, make, mark } from "./dom.js";
import { show, shown } from "./map.js";
import { WRONG, countsOf, crossed, moveTo, on, state, emit } from "./store.js";

const place = byId("labels");
export const DRAGGED = "text/x-subgenre-track";
const NO_REFIT = "A refit is not possible: the features of the model are gone. Run the “subgenre preprocess” command that made them, then open the model again.";

export function start() {
  byId("all").onclick = () => setAll(true);
  byId("none").onclick = () => setAll(false);
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
  const unlabelled = counts.get(-1), wrong = counts.get(WRONG);
  const groups = [...genres].map(([genre, buttons]) => make("div", { class: "group" }, make("h3", {}, genre || "no genre"), ...buttons));
  if (unlabelled || wrong) groups.push(make("div", { class: "group" }, make("h3", {}, "Without a subgenre"),
    unlabelled ? entry({ subgenre: "no subgenre", count: unlabelled }, -1) : "", wrong ? entry(crossed(wrong), WRONG) : ""));
  place.replaceChildren(...groups);
  drawCorrections();
}

function entry(label, number) {
  const button = make("button", { type: "button", "aria-pressed": String(shown(number)), "data-label": number, onclick: () => toggle(button) },
    label.outline ? mark(label) : make("i", { class: "dot" }), make("span", {}, label.subgenre), make("small", {}, String(label.count)));
  if (number >= 0) acceptDrops(button, label);
  return button;
}

function acceptDrops(button, label) {
  const isTrack = (event) => event.dataTransfer.types.includes(DRAGGED);
  button.addEventListener("dragover", (event) => {
    if (!isTrack(event)) return;
    event.preventDefault();
    button.classList.add("over");
  });
  button.addEventListener("dragleave", () => button.classList.remove("over"));
  button.addEventListener("drop", (event) => {
    button.classList.remove("over");
    if (!isTrack(event)) return;
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

function setAll(visible) {
  for (const button of place.querySelectorAll("button")) {
    if ((button.getAttribute("aria-pressed") === "true") !== visible) toggle(button);
  }
}

function drawCorrections() {
  const count = Object.keys(state.corrections).length, { pending } = state, canRefit = state.library.can_refit;
  const button = byId("refit");
  byId("corrections").hidden = !count && !(pending && canRefit);
  button.hidden = !canRefit;
  button.classList.toggle("main", pending);
  if (!button.hasAttribute("aria-busy")) button.disabled = !pending;
  const fitted = pending ? "The map does not include your last correction yet." : "The map includes all corrections.";
  byId("refit-note").textContent = canRefit ? `${fitted} A refit lasts until the explorer is stopped; corrections are kept.` : NO_REFIT;
  byId("correction-count").textContent = count ? `${counted(count, "correction")} kept. Your files stay as they are.` : "All corrections are removed.";
}

async function refit() {
  const bar = byId("refit-progress"), timer = setInterval(drawProgress, 300);
  bar.removeAttribute("value"); // as long as no stage has begun
  bar.hidden = false;
  const done = await busy(byId("refit"), "Refitting", () => post("/refit"));
  clearInterval(timer);
  bar.hidden = true;
  if (done) emit("refitted", done);
}

async function drawProgress() {
  const bar = byId("refit-progress"), { stage, done, total } = await get("/refit");
  if (!byId("refit").hasAttribute("aria-busy")) return; // it ended meanwhile
  if (!total) return;
  bar.max = total;
  bar.value = done;
  bar.title = stage;
}
