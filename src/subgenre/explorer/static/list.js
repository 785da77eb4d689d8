// The list of chosen tracks, by lasso or button; it can be reordered and saved as a playlist.

import { post } from "./api.js";
import { busy, byId, counted, make, say } from "./dom.js";
import { ring } from "./map.js";
import { row } from "./rows.js";
import { lineOf, on, state, emit } from "./store.js";

const MAX = 1000;
const panel = byId("list");
let ids = [];
let replace = false;
let name = "My playlist";
let format = "m3u8";
let saved = null;

export function start() {
  on("lasso", (found) => {
    add(found);
    emit("tab", "list");
  });
  on("add", add);
  on("corrected", () => draw(focused()));
  ids = stored();
  draw();
}

// the list survives a reload of the page, in this tab and for this library
const storageKey = () => `subgenre.list.${state.library.title}`;

function store() {
  try { sessionStorage.setItem(storageKey(), JSON.stringify(ids)); } catch { /* a browser may forbid storage */ }
}

function stored() {
  try {
    const found = JSON.parse(sessionStorage.getItem(storageKey()));
    return Array.isArray(found) ? [...new Set(found)].filter((id) => state.place.has(id)).slice(0, MAX) : [];
  } catch { return []; }
}

export const listed = () => ids;

function add(found) {
  const held = new Set(ids);
  const fresh = found.filter((id) => !held.has(id) && state.place.has(id));
  const room = Math.max(0, MAX - ids.length);
  if (fresh.length > room) say(`A list holds ${MAX} tracks; ${fresh.length - room} are left out.`, true);
  set([...ids, ...fresh.slice(0, room)]);
  say(fresh.length ? `${counted(Math.min(fresh.length, room), "track")} added to the list.` : "Already in the list.");
}

function set(order, focus) {
  ids = order.filter((id) => state.place.has(id));
  store();
  saved = null;
  replace = false;
  draw(focus);
}

export function refresh() {
  set(ids);
}

// the focused button of a line, to focus it again after the lines are redrawn
function focused() {
  const button = document.activeElement, line = button && button.closest("#list .track");
  return line && { id: line.dataset.id, button: [...button.classList].at(-1) };
}

function draw(focus) {
  byId("list-count").textContent = String(ids.length);
  ring("picked", ids);
  if (!ids.length) {
    panel.replaceChildren(make("p", { class: "empty" }, "Draw a lasso around points of the map, or press + beside a track. You can reorder the list and save it as a playlist."));
    return;
  }
  const items = make("ol", { class: "tracks order", "aria-label": "Playlist" }, ...ids.map((id, i) => item(id, i)));
  panel.replaceChildren(saver(), tools(), items);
  if (focus) panel.querySelector(`[data-id="${CSS.escape(focus.id)}"] .${focus.button}`)?.focus();
}

function item(id, i) {
  const track = lineOf(id);
  const button = (kind, sign, action, to) => make("button", {
    type: "button", class: `small ${kind}`, "aria-label": `${action} ${track.title}`, title: action,
    disabled: to !== null && (to < 0 || to >= ids.length),
    onclick: () => (to === null ? set(ids.filter((other) => other !== id)) : move(i, to, { id, button: to === 0 ? "down" : to === ids.length - 1 ? "up" : kind })),
  }, sign);
  const line = row(track, button("up", "↑", "Move up", i - 1), button("down", "↓", "Move down", i + 1), button("out", "×", "Remove", null));
  line.addEventListener("dragstart", (event) => {
    event.dataTransfer.setData("text/x-subgenre-order", String(i));
    line.classList.add("held");
  });
  line.addEventListener("dragend", () => line.classList.remove("held"));
  line.addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("text/x-subgenre-order")) return;
    event.preventDefault();
    line.classList.add("over");
  });
  line.addEventListener("dragleave", () => line.classList.remove("over"));
  line.addEventListener("drop", (event) => {
    const from = event.dataTransfer.getData("text/x-subgenre-order");
    if (from === "") return;
    event.preventDefault();
    event.stopPropagation();
    move(Number(from), i);
  });
  return line;
}

function move(from, to, focus) {
  const order = [...ids];
  order.splice(to, 0, ...order.splice(from, 1));
  set(order, focus);
}

function tools() {
  const smooth = make("button", { type: "button", onclick: () => busy(smooth, "Ordering", async () => {
    set((await post("/order", { ids, keep_first: true })).tracks.map((t) => t.id));
  }) }, "Smooth order");
  const more = make("button", { type: "button", title: "Add the 10 tracks most similar to these", onclick: () => busy(more, "Searching", async () => {
    add((await post("/playlist", { kind: "agreement", seeds: ids.slice(0, 200), k: 10 })).tracks.map((t) => t.id));
  }) }, "10 more like these");
  return make("div", { class: "actions" }, smooth, more, make("button", { type: "button", onclick: () => set([]) }, "Clear"));
}

function saver() {
  const field = make("input", { id: "list-name", type: "text", maxlength: 200, value: name, required: true, oninput: () => { name = field.value; replace = false; } });
  const kind = make("select", { "aria-label": "Format", onchange: () => { format = kind.value; replace = false; } },
    ...[["m3u8", "M3U8"], ["xml", "rekordbox"], ["csv", "CSV"]].map(([value, text]) => make("option", { value, selected: value === format }, text)));
  const submit = make("button", { type: "submit", class: "main" }, replace ? "Replace" : "Save");
  const form = make("form", { class: "save" }, make("label", { for: "list-name" }, `Save ${counted(ids.length, "track")} as`),
    make("div", { class: "actions" }, field, kind, submit),
    saved ? make("p", { class: "soft", role: "status" }, `Saved in ${saved.folder}. `, make("a", { href: `/api/playlists/${encodeURIComponent(saved.file)}`, download: saved.file }, `Download ${saved.file}`)) : "");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    save(submit);
  });
  return form;
}

async function save(button) {
  await busy(button, null, async () => {
    try {
      saved = await post("/playlists", { name, ids, format, replace });
      replace = false;
      say(`${counted(saved.tracks, "track")} saved as ${saved.file}.`);
    } catch (problem) {
      if (problem.status !== 409) throw problem;
      replace = true;
      say(`“${name}” exists. Press Replace to overwrite it, or choose another name.`, true);
    }
  });
  draw();
}
