// Search by title, artist and path: a field with a list of results.

import { get } from "./api.js";
import { byId, make, mark } from "./dom.js";
import { emit, shownLabel } from "./store.js";

const field = byId("query"), map = byId("plot"), list = byId("found");
let timer = 0, latest = 0, active = -1;

export function start() {
  field.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(look, 120);
  });
  field.addEventListener("keydown", keys);
  field.addEventListener("focus", () => { if (list.childElementCount && field.value.trim()) open(true); });
  document.addEventListener("pointerdown", (event) => { if (!event.target.closest(".search")) open(false); });
}

function open(shown) {
  list.hidden = !shown;
  field.setAttribute("aria-expanded", String(shown));
  if (!shown) activate(-1);
}

async function look() {
  const query = field.value.trim(), mine = ++latest;
  if (!query) { list.replaceChildren(); open(false); return; }
  try {
    const found = await get(`/search?limit=30&q=${encodeURIComponent(query)}`);
    if (mine !== latest) return;
    list.replaceChildren(...found.tracks.map(option));
    if (!found.tracks.length) list.append(make("li", { class: "none", role: "option", "aria-disabled": "true" }, `No track with “${query}”`));
  } catch (problem) {
    list.replaceChildren(make("li", { class: "none bad", role: "option", "aria-disabled": "true" }, problem.message));
  }
  active = -1;
  open(true);
}

function option(track, i) {
  const { label, text } = shownLabel(track);
  return make("li", { role: "option", id: `found-${i}`, "aria-selected": "false", "data-id": track.id, onpointerdown: (event) => { event.preventDefault(); choose(track.id); } },
    label ? mark(label) : make("i", { class: "dot" }),
    make("span", {}, make("b", {}, track.title), make("small", {}, [track.artist, text].filter(Boolean).join(" · "))));
}

// close the list: keys control the map again, and a late answer is ignored
function leave() {
  clearTimeout(timer);
  latest++;
  open(false);
  map.focus({ preventScroll: true });
}

function choose(id) {
  leave();
  emit("choose", { id, play: true });
}

function activate(i) {
  const options = [...list.querySelectorAll("[data-id]")];
  active = options.length ? Math.max(-1, Math.min(options.length - 1, i)) : -1;
  options.forEach((o, n) => o.setAttribute("aria-selected", String(n === active)));
  if (active >= 0) {
    field.setAttribute("aria-activedescendant", options[active].id);
    options[active].scrollIntoView({ block: "nearest" });
  } else field.removeAttribute("aria-activedescendant");
}

function keys(event) {
  if (event.key === "Escape") { event.preventDefault(); leave(); return; }
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    if (list.hidden && list.childElementCount) open(true);
    activate(active + (event.key === "ArrowDown" ? 1 : -1));
  }
  if (event.key === "Enter") {
    const options = list.querySelectorAll("[data-id]");
    const chosen = options[Math.max(active, 0)];
    if (!list.hidden && chosen) { event.preventDefault(); choose(chosen.dataset.id); }
  }
}
