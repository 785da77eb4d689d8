// A file that is dropped on the page or picked: the server places it on the map.

import { upload } from "./api.js";
import { byId, say } from "./dom.js";
import { showPlaced } from "./map.js";
import { loadPlaced } from "./player.js";
import { state, emit } from "./store.js";
import { openPlaced } from "./track.js";

const cover = byId("drop"), pick = byId("pick"), file = byId("file");
let depth = 0, working = false;

export function start() {
  if (!state.library.can_place) return;
  pick.hidden = false;
  file.accept = state.library.extensions.join(",");
  pick.onclick = () => file.click();
  file.onchange = () => { if (file.files[0]) place(file.files[0]); file.value = ""; };
  const files = (event) => event.dataTransfer && event.dataTransfer.types.includes("Files");
  addEventListener("dragenter", (event) => { if (files(event)) { depth++; cover.hidden = false; } });
  addEventListener("dragleave", (event) => { if (files(event) && --depth <= 0) { depth = 0; cover.hidden = true; } });
  addEventListener("dragover", (event) => { if (files(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    if (!files(event)) return;
    event.preventDefault();
    depth = 0;
    cover.hidden = true;
    if (event.dataTransfer.files[0]) place(event.dataTransfer.files[0]);
  });
}

async function place(chosen) {
  if (working) { say("Another file is being placed; wait for it.", true); return; }
  const limit = state.library.max_upload_mb;
  if (chosen.size > limit * 2 ** 20) {
    say(`“${chosen.name}” is larger than ${limit} MB, the limit of an upload.`, true);
    return;
  }
  working = true;
  pick.disabled = true;
  pick.setAttribute("aria-busy", "true");
  try {
    const show = (share) => { pick.textContent = share < 1 ? `Sending ${Math.round(100 * share)}\u00a0%` : "Encoding"; };
    const placed = await upload(`/place?name=${encodeURIComponent(chosen.name)}`, chosen, show);
    emit("tab", "track");
    emit("placed");
    openPlaced(placed);
    loadPlaced(placed, chosen);
    await showPlaced(placed);
    say(`“${placed.name}” is marked by a star.`);
  } catch (problem) {
    say(problem.message, true);
  } finally {
    working = false;
    pick.disabled = false;
    pick.removeAttribute("aria-busy");
    pick.textContent = "Place a file";
  }
}
