// The player: one audio element, and a canvas with the peaks and the chunks of the track.

import { get, trackPath } from "./api.js";
import { byId, clock, dark, say, styleOf } from "./dom.js";
import { lineOf, on, state, shownLabel } from "./store.js";

const audio = byId("audio"), canvas = byId("peaks"), button = byId("play"), status = byId("wave-state");
let sound = null; // { id, title, peaks, windows, chunk, duration, retried, url }
let latest = 0;

export function start() {
  button.onclick = toggle;
  for (const name of ["play", "pause", "ended"]) audio.addEventListener(name, mark);
  for (const name of ["timeupdate", "seeked", "durationchange"]) audio.addEventListener(name, advance);
  audio.addEventListener("error", failed);
  canvas.addEventListener("pointerdown", (event) => seek((event.offsetX / canvas.clientWidth) * duration()));
  canvas.addEventListener("keydown", keys);
  new ResizeObserver(draw).observe(canvas);
  dark.addEventListener("change", draw);
  on("corrected", named);
}

// artist and subgenre: a correction or a refit may change them while the track plays
export function named() {
  if (!sound) return;
  const line = state.place.has(sound.id) ? lineOf(sound.id) : null;
  byId("now-by").textContent = line ? [line.artist, shownLabel(line).text].filter(Boolean).join(" · ") : sound.by;
}

const duration = () => (Number.isFinite(audio.duration) && audio.duration > 0 ? audio.duration : sound ? sound.duration : 0);

export function toggle() {
  if (!sound) return;
  if (audio.paused) audio.play().catch(() => {});
  else audio.pause();
}

// play a track of the library
export async function load(detail, play) {
  if (sound && sound.id === detail.id) {
    if (play) audio.play().catch(() => {});
    return;
  }
  begin({ id: detail.id, title: detail.title, by: detail.artist, windows: detail.windows_s, chunk: detail.chunk_s, duration: detail.duration_s, peaks: null }, `/api${trackPath(detail.id, "/audio")}`, play);
  const mine = ++latest;
  status.textContent = "Loading the waveform";
  try {
    const answer = await get(trackPath(detail.id, "/peaks"));
    if (mine !== latest) return;
    sound.peaks = unpack(answer.peaks);
    status.textContent = "";
  } catch (problem) {
    if (mine === latest) status.textContent = problem.message;
  }
  draw();
}

// play a dropped file, which only the browser has
export function loadPlaced(placed, file) {
  latest++;
  status.textContent = "";
  const url = URL.createObjectURL(file);
  begin({ id: null, title: placed.name, by: "dropped file", windows: placed.windows_s, chunk: placed.chunk_s, duration: placed.duration_s, peaks: unpack(placed.peaks.peaks), url }, url, true);
}

function begin(next, source, play) {
  if (sound && sound.url) URL.revokeObjectURL(sound.url);
  sound = next;
  byId("player").hidden = false;
  byId("now-title").textContent = sound.title;
  named();
  audio.src = source;
  audio.setAttribute("aria-label", sound.title);
  if (play) audio.play().catch(() => {}); // if the browser forbids it, the person presses the button
  draw();
}

// levels as shares of the loudest, so that a quiet track is visible, too
function unpack(text) {
  const levels = Float32Array.from(atob(text), (c) => c.charCodeAt(0));
  const top = Math.max(1, ...levels);
  return levels.map((level) => level / top);
}

function failed() {
  if (!sound || sound.id === null || sound.retried) {
    if (sound) say(`“${sound.title}” can't be played.`, true);
    return;
  }
  sound.retried = true; // this browser lacks the codec: get an MP3
  audio.src = `/api${trackPath(sound.id, "/audio?mp3=true")}`;
  audio.play().catch(() => {});
}

function mark() {
  const on = !audio.paused && !audio.ended;
  button.classList.toggle("on", on);
  button.setAttribute("aria-pressed", String(on));
  button.setAttribute("aria-label", on ? "Pause" : "Play");
}

function advance() {
  byId("time").textContent = `${clock(audio.currentTime)} / ${clock(duration())}`;
  canvas.setAttribute("aria-valuemax", String(Math.round(duration())));
  canvas.setAttribute("aria-valuenow", String(Math.round(audio.currentTime)));
  canvas.setAttribute("aria-valuetext", `${clock(audio.currentTime)} of ${clock(duration())}`);
  draw();
}

function seek(seconds) {
  if (!sound) return;
  audio.currentTime = Math.max(0, Math.min(duration() - 0.05, seconds));
}

function keys(event) {
  const step = { ArrowRight: 5, ArrowLeft: -5, PageUp: 30, PageDown: -30 }[event.key];
  if (step === undefined && event.key !== "Home") return;
  event.preventDefault();
  event.stopPropagation();
  seek(event.key === "Home" ? 0 : audio.currentTime + step);
}

function draw() {
  const wide = canvas.clientWidth, high = canvas.clientHeight, scale = devicePixelRatio || 1;
  if (!wide || !high) return;
  if (canvas.width !== Math.round(wide * scale)) canvas.width = Math.round(wide * scale);
  if (canvas.height !== Math.round(high * scale)) canvas.height = Math.round(high * scale);
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, wide, high);
  if (!sound) return;
  const length = duration() || 1, middle = (high - 5) / 2, played = (audio.currentTime / length) * wide;
  const used = styleOf("--used"), rest = styleOf("--faint"), done = styleOf("--accent");
  for (const start of sound.windows) {
    const x = (start / length) * wide, w = Math.max(2, (Math.min(sound.chunk, length - start) / length) * wide);
    pen.fillStyle = styleOf("--wash");
    pen.fillRect(x, 0, w, high - 5);
    pen.fillStyle = used;
    pen.fillRect(x, high - 3, w, 3);
  }
  const bars = Math.max(1, Math.floor(wide / 3));
  for (let b = 0; b < bars; b++) {
    const level = sound.peaks ? loudest(sound.peaks, b / bars, (b + 1) / bars) : 0.02;
    const h = Math.max(1, level * (middle - 1));
    pen.fillStyle = b * 3 < played ? done : rest;
    pen.fillRect(b * 3, middle - h, 2, 2 * h);
  }
}

function loudest(levels, from, to) {
  const first = Math.floor(from * levels.length);
  return Math.max(...levels.subarray(first, Math.max(first + 1, Math.floor(to * levels.length))));
}
