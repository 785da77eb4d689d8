// The page: loads the library, starts the parts, and handles the keyboard.

import * as axis from "./axis.js";
import { byId, calm, counted, narrow, quiet, say } from "./dom.js";
import * as drop from "./drop.js";
import * as legend from "./legend.js";
import * as list from "./list.js";
import * as map from "./map.js";
import * as player from "./player.js";
import * as search from "./search.js";
import * as sketch from "./sketch.js";
import { load, markWrong, on, state, emit } from "./store.js";
import * as track from "./track.js";

const TABS = ["track", "list", "axis"];
const trail = []; // ids in the order they were chosen
let step = -1;

function loadPlotly() {
  return new Promise((resolve, reject) => {
    if (window.Plotly) { resolve(); return; }
    const script = document.createElement("script");
    script.src = "/plotly.js";
    script.onload = resolve;
    script.onerror = () => { script.remove(); reject(new Error("The map could not be loaded.")); };
    document.head.append(script);
  });
}

async function start() {
  document.body.dataset.state = "loading";
  byId("wait").hidden = false;
  byId("again").hidden = true;
  byId("wait-text").textContent = "Loading the library";
  try {
    await load();
    head();
    if (!state.library.tracks) { empty(); return; }
    parts();
    sketch.start();
    byId("wait").hidden = true;
    await quiet(700); // the first clicks work before plotly blocks the page while it starts
    await loadPlotly();
    await map.start();
    sketch.stop();
    document.body.dataset.state = "ready";
  } catch (problem) {
    byId("wait").hidden = false;
    byId("wait-text").textContent = problem.message;
    byId("again").hidden = false;
    document.body.dataset.state = "error";
  }
}

function head() {
  const { title, tracks, labels, note } = state.library;
  document.title = `${title} · subgenre`;
  byId("title").replaceChildren(...breakable(title));
  byId("title").title = title; // the whole, if it is cut
  byId("count").textContent = `${counted(tracks, "track")}, ${counted(labels.length, "subgenre")}`;
  byId("note").textContent = note;
}

// a name that breaks after a separator rather than within a word
function breakable(name) {
  return name.split(/(?<=[_\-./])/).flatMap((part) => [part, document.createElement("wbr")]);
}

function empty() {
  document.body.dataset.state = "empty";
  byId("wait-text").textContent = "No tracks yet. Index a library first: subgenre index LIBRARY";
}

let started = false;

function parts() {
  if (started) return;
  started = true;
  for (const part of [legend, track, list, axis, player, search, drop]) part.start();
  byId("move").onclick = () => map.setMode("pan");
  byId("lasso").onclick = () => map.setMode("lasso");
  byId("whole").onclick = map.whole;
  byId("keys").onclick = () => byId("help").showModal();
  for (const name of TABS) byId(`tab-${name}`).onclick = () => tab(name);
  document.querySelector("[role=tablist]").addEventListener("keydown", tabKeys);
  on("tab", tab);
  on("choose", pick);
  on("placed", () => { state.current = null; map.ring("current", []); });
  on("refitted", () => renew("Refitted: this is the new map."));
  document.addEventListener("revision", ({ detail }) => {
    const ready = document.body.dataset.state === "ready";
    if (ready && detail > state.points.revision) renew("The library has changed: this is its new map.");
  });
  document.addEventListener("keydown", keys);
}

function tab(name) {
  for (const other of TABS) {
    const chosen = other === name;
    byId(`tab-${other}`).setAttribute("aria-selected", String(chosen));
    byId(`tab-${other}`).tabIndex = chosen ? 0 : -1;
    byId(other).hidden = !chosen;
  }
  if (name === "axis") axis.load();
  else map.ring("picked", list.listed());
}

function tabKeys(event) {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!by) return;
  event.preventDefault();
  const at = TABS.findIndex((name) => byId(`tab-${name}`).getAttribute("aria-selected") === "true");
  const next = TABS[(at + by + TABS.length) % TABS.length];
  tab(next);
  byId(`tab-${next}`).focus();
}

// chosen by pointer or search: on a narrow screen, scroll to the panel
async function pick({ id, play }) {
  await choose(id, play);
  if (narrow.matches && state.current === id && !byId("track").hidden) {
    byId("side").scrollIntoView({ block: "start", behavior: calm.matches ? "auto" : "smooth" });
  }
}

async function choose(id, play, walking = false) {
  if (!walking) {
    trail.splice(step + 1, trail.length, id);
    step = trail.length - 1;
  }
  state.current = id;
  map.ring("current", [id]);
  map.reveal(id);
  if (!document.activeElement?.closest("#list, #axis, #side [role=tablist]")) tab("track");
  const detail = await track.open(id);
  if (detail && state.current === id) player.load(detail, play);
}

// to the nearest neighbour not played on this walk, or back
function walk(by) {
  if (by < 0) {
    if (step > 0) choose(trail[--step], true, true);
    return;
  }
  if (step < trail.length - 1) { choose(trail[++step], true, true); return; }
  const played = new Set(trail);
  const next = state.current === null ? state.points.ids[0] : track.neighbours().map((t) => t.id).find((id) => !played.has(id));
  if (next) choose(next, true);
  else say("All its neighbours were played.");
}

const inField = (target) => target.closest("input, select, textarea, dialog");

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || inField(event.target)) return;
  const onMap = event.target === document.body || event.target.closest("#map");
  if (event.key === "/") { event.preventDefault(); byId("query").focus(); byId("query").select(); }
  else if (["1", "2", "3"].includes(event.key)) tab(TABS[Number(event.key) - 1]);
  else if (event.key === "l" && state.current) emit("add", [state.current]);
  else if (event.key === "w" && state.current) markWrong(state.current);
  else if (event.key === " " && !event.target.closest("button, a")) { event.preventDefault(); player.toggle(); }
  else if (onMap && event.key === "Enter" && !event.target.closest("button")) { if (state.current) player.toggle(); else walk(1); }
  else if (onMap && (event.key === "ArrowRight" || event.key === "ArrowDown")) { event.preventDefault(); walk(1); }
  else if (onMap && (event.key === "ArrowLeft" || event.key === "ArrowUp")) { event.preventDefault(); walk(-1); }
}

let renewing = false; // its own requests name the new revision, too

async function renew(message) {
  if (renewing) return;
  renewing = true;
  try {
    const before = new Map(state.points.ids.map((id, i) => [id, { x: state.points.x[i], y: state.points.y[i] }]));
    await load();
    head();
    legend.draw();
    axis.start();
    await map.showPlaced(null);
    await map.travel(before);
    list.refresh();
    player.named();
    if (state.current) await track.open(state.current);
    document.body.dataset.revision = state.points.revision;
    say(message);
  } catch (problem) {
    say(problem.message, true);
  } finally {
    renewing = false;
  }
}

byId("again").onclick = start;
start();
