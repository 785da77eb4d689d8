// Elements, texts and times. Text is always set as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

// make("button", { class: "x", onclick: f, "aria-label": "y" }, "text", child)
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function mark(label) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", label.outline);
  path.setAttribute("fill", label.colour);
  svg.append(path);
  return svg;
}

export function clock(seconds) {
  if (!Number.isFinite(seconds)) return "0:00";
  const whole = Math.floor(seconds);
  const h = Math.floor(whole / 3600), m = Math.floor(whole / 60) % 60;
  const tail = String(whole % 60).padStart(2, "0");
  return h ? `${h}:${String(m).padStart(2, "0")}:${tail}` : `${m}:${tail}`;
}

export const percent = (share) => (share > 0 && share < 0.01 ? "under 1\u00a0%" : `${Math.round(100 * share)}\u00a0%`);
export const counted = (n, one, many = one + "s") => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

export function say(text, bad = false) {
  const toast = make("p", { class: bad ? "toast bad" : "toast" }, text);
  for (const old of byId("toasts").querySelectorAll(".toast:not(.bad)")) old.remove();
  byId("toasts").append(toast);
  setTimeout(() => toast.remove(), bad ? 9000 : 4500);
}

// run a slow job of a button, which is disabled meanwhile; show its error
export async function busy(button, label, job) {
  const before = button.textContent;
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  if (label) button.textContent = label;
  try {
    return await job();
  } catch (problem) {
    say(problem.message, true);
    return undefined;
  } finally {
    button.disabled = false;
    button.removeAttribute("aria-busy");
    if (label) button.textContent = before;
  }
}

// resolve after a time without pointer or key, or at a turn of the wheel: only plotly can zoom
export function quiet(milliseconds) {
  return new Promise((resolve) => {
    const events = ["pointermove", "pointerdown", "keydown"];
    let timer = setTimeout(done, milliseconds);
    function wait() { clearTimeout(timer); timer = setTimeout(done, milliseconds); }
    function done() {
      clearTimeout(timer);
      removeEventListener("wheel", done, true);
      for (const kind of events) removeEventListener(kind, wait, true);
      resolve();
    }
    addEventListener("wheel", done, { capture: true, passive: true });
    for (const kind of events) addEventListener(kind, wait, true);
  });
}

export function styleOf(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

export const dark = matchMedia("(prefers-color-scheme: dark)");
export const calm = matchMedia("(prefers-reduced-motion: reduce)");
export const narrow = matchMedia("(max-width: 999px)"); // one column, as in style.css
export const coarse = matchMedia("(pointer: coarse)");
