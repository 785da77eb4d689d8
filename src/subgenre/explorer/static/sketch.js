// The first map: the same points at the same places on a canvas, which reacts to the pointer at once.
// It is shown while plotly, which is several megabytes, is loaded.

import { byId } from "./dom.js";
import { extent, groups, look, marks, name, shown } from "./map.js";
import { on, state, emit } from "./store.js";

const NEAR = 14; // pixels, as in map.js
const canvas = byId("sketch");
let view = null; // data -> pixels

function fit() {
  const { clientWidth: width, clientHeight: height } = canvas;
  const [x0, x1] = extent(state.points.x), [y0, y1] = extent(state.points.y);
  const scale = Math.min(width / (x1 - x0), height / (y1 - y0));
  view = {
    x: (v) => width / 2 + (v - (x0 + x1) / 2) * scale,
    y: (v) => height / 2 - (v - (y0 + y1) / 2) * scale,
  };
  canvas.width = width * devicePixelRatio;
  canvas.height = height * devicePixelRatio;
}

function draw() {
  fit();
  const pen = canvas.getContext("2d"), { size, opacity } = marks();
  const image = size < 4 ? pen.createImageData(canvas.width, canvas.height) : null;
  pen.scale(devicePixelRatio, devicePixelRatio);
  pen.globalAlpha = opacity;
  for (const { label, rows } of groups()) {
    if (!shown(label)) continue;
    pen.fillStyle = look(label).colour;
    if (image) squares(image, rows, size * devicePixelRatio, pen.fillStyle, 255 * opacity);
    else for (const i of rows) dot(pen, view.x(state.points.x[i]), view.y(state.points.y[i]), size);
  }
  if (image) pen.putImageData(image, 0, 0);
}

function dot(pen, x, y, size) {
  pen.beginPath();
  pen.arc(x, y, size / 2, 0, 7);
  pen.fill();
}

// 100,000 squares: ten times as fast as fillRect
function squares({ data, width, height }, rows, size, hex, alpha) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  const side = Math.max(1, Math.round(size));
  for (const i of rows) {
    const left = Math.round(view.x(state.points.x[i]) * devicePixelRatio - side / 2);
    const top = Math.round(view.y(state.points.y[i]) * devicePixelRatio - side / 2);
    for (let y = Math.max(0, top); y < Math.min(height, top + side); y++)
      for (let x = Math.max(0, left); x < Math.min(width, left + side); x++) {
        const at = 4 * (y * width + x);
        data[at] = red;
        data[at + 1] = green;
        data[at + 2] = blue;
        data[at + 3] = alpha;
      }
  }
}

function nearest(event) {
  const box = canvas.getBoundingClientRect(), { x, y } = state.points;
  const atX = event.clientX - box.left, atY = event.clientY - box.top;
  let best = null, least = NEAR ** 2;
  for (const { label, rows } of groups()) {
    if (!shown(label)) continue;
    for (const i of rows) {
      const far = (view.x(x[i]) - atX) ** 2 + (view.y(y[i]) - atY) ** 2;
      if (far < least) { best = i; least = far; }
    }
  }
  return best;
}

function point(event) {
  const i = nearest(event);
  if (i === null) byId("tip").hidden = true;
  else name(i, event);
}

export function start() {
  canvas.hidden = false;
  draw();
  canvas.onclick = (event) => {
    const i = nearest(event);
    if (i !== null) emit("choose", { id: state.points.ids[i], play: true });
  };
  canvas.onpointermove = point;
  canvas.onpointerleave = () => { byId("tip").hidden = true; };
}

export function stop() {
  canvas.hidden = true;
}

function again() {
  if (!canvas.hidden) draw();
}

on("shown", again);
on("corrected", again);
new ResizeObserver(again).observe(canvas); // the player, which appears later, changes its size
