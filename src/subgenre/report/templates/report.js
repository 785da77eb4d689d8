// The interactive parts of the report: the map, its legend, and the player.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

  // ---- on a narrow screen secondary figures start folded; their findings stand above ----
  if (matchMedia("(max-width: 600px)").matches) {
    for (const figures of document.querySelectorAll("details.figures")) figures.open = false;
  }

  // ---- the player: one audio element, a button beside each track ----
  const audio = document.getElementById("audio");
  const previews = new Map();
  for (const node of document.querySelectorAll("script[data-preview]")) {
    previews.set(node.dataset.preview, node);
  }
  let current = null;

  function load(id) {
    const node = previews.get(id);
    const text = atob(node.textContent);
    const bytes = Uint8Array.from(text, (c) => c.charCodeAt(0));
    if (audio.src) URL.revokeObjectURL(audio.src);
    audio.src = URL.createObjectURL(new Blob([bytes], { type: "audio/mpeg" }));
    current = id;
    const [title, artist, subgenre] = data.tracks[id] || ["", "", ""];
    announce(title, [artist, subgenre].filter(Boolean).join(" · "));
    audio.setAttribute("aria-label", "Preview of " + title);
  }

  function announce(title, more) {
    document.getElementById("now-title").textContent = title;
    document.getElementById("now-by").textContent = more;
  }

  function toggle(id) {
    if (!previews.has(id)) {
      const point = data.points.find((p) => p.id === id);
      if (audio && point) {
        audio.removeAttribute("src");
        audio.load();
        current = null;
        announce(point.title, "no preview in this file; subgenre explore plays every track");
      }
      return;
    }
    if (id === current && !audio.paused) return audio.pause();
    if (id !== current) load(id);
    document.getElementById("player").classList.add("stuck");
    audio.play().catch(() => {}); // the browser forbids it: the controls remain
  }

  function mark() {
    for (const button of document.querySelectorAll("[data-play]")) {
      const on = button.dataset.play === current && !audio.paused && !audio.ended;
      button.classList.toggle("on", on);
      button.setAttribute("aria-pressed", String(on));
    }
  }

  if (audio) {
    load(previews.keys().next().value);
    for (const name of ["play", "pause", "ended", "emptied"]) audio.addEventListener(name, mark);
    document.addEventListener("click", (event) => {
      const button = event.target.closest("[data-play]");
      if (button) toggle(button.dataset.play);
    });
    mark();
  }

  // ---- the map ----
  const plot = document.getElementById("plot");
  if (!plot || !window.Plotly || !data.points.length) return;
  const looks = {
    train: { size: 8, opacity: 0.42, line: 0 },
    test: { size: 12, opacity: 1, line: 1.2 },
  };
  // faint marks need more opacity on a dark background
  const opacityOf = (look) => (dark.matches && look.opacity < 1 ? 0.6 : look.opacity);
  const splitNames = { train: "training", test: "held out" };
  // Plotly reads markup in its texts: escape titles
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const shortened = (text) => (text.length > 60 ? text.slice(0, 42) + "…" + text.slice(-16) : text);
  const traces = [];
  for (const split of Object.keys(looks)) {
    data.labels.forEach((label, number) => {
      const own = data.points.filter((p) => p.split === split && p.label === number);
      if (own.length) traces.push({ split, number, label, own, look: looks[split] });
    });
  }

  function hover(point, label) {
    const lines = ["<b>" + plain(shortened(point.title)) + "</b>"];
    if (point.artist) lines.push(plain(shortened(point.artist)));
    lines.push(plain(label.name) + " · " + splitNames[point.split]);
    if (point.predicted) lines.push("predicted: " + plain(point.predicted));
    lines.push(point.playable ? "<i>click to play</i>" : "<i>no preview in this file</i>");
    return lines.join("<br>");
  }

  const ink = () => (dark.matches ? "#f1f3f5" : "#1f2328");
  // fixed axes: the map does not move when a subgenre is hidden
  const extent = (key) => {
    const all = data.points.map((p) => p[key]);
    const low = all.reduce((a, b) => Math.min(a, b)), high = all.reduce((a, b) => Math.max(a, b));
    const edge = 0.05 * (high - low) || 1;
    return [low - edge, high + edge];
  };
  const layout = () => ({
    margin: { l: 4, r: 4, t: 4, b: 4 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    showlegend: false,
    hovermode: "closest",
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    xaxis: { visible: false, range: extent("x") },
    yaxis: { visible: false, range: extent("y"), scaleanchor: "x" },
    hoverlabel: {
      bgcolor: dark.matches ? "#262a32" : "#ffffff",
      bordercolor: dark.matches ? "#4a515e" : "#c9ccd3",
      font: { color: ink(), family: "system-ui, sans-serif", size: 13 },
      align: "left",
    },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: "#8c93a0", activecolor: ink() },
  });
  const drawn = () => traces.map(({ label, own, look }) => ({
    type: data.gl ? "scattergl" : "scatter",
    mode: "markers",
    x: own.map((p) => p.x),
    y: own.map((p) => p.y),
    hovertext: own.map((p) => hover(p, label)),
    hoverinfo: "text",
    customdata: own.map((p) => p.id),
    marker: {
      symbol: label.symbol, color: label.colour, size: look.size, opacity: opacityOf(look),
      line: { width: look.line, color: ink() },
    },
  }));
  const config = {
    displaylogo: false, responsive: true,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "toImage"],
  };
  Plotly.newPlot(plot, drawn(), layout(), config).then(() => {
    plot.on("plotly_click", (event) => toggle(event.points[0].customdata));
    plot.dataset.ready = "true";
  });
  dark.addEventListener("change", () => Plotly.react(plot, drawn(), layout(), config).then(show));

  // ---- the legend ----
  const buttons = [...document.querySelectorAll("[data-label]")];
  const boxes = [...document.querySelectorAll("[data-split]")];
  const every = traces.map((_, i) => i);

  function show() {
    const labels = new Set(buttons.filter((b) => b.getAttribute("aria-pressed") === "true").map((b) => +b.dataset.label));
    const splits = new Set(boxes.filter((b) => b.checked).map((b) => b.dataset.split));
    const visible = traces.map((t) => labels.has(t.number) && splits.has(t.split));
    return Plotly.restyle(plot, { visible }, every);
  }

  function highlight(number) {
    const opacity = traces.map((t) => (number === null || t.number === number ? opacityOf(t.look) : 0.08));
    Plotly.restyle(plot, { "marker.opacity": opacity }, every);
  }

  for (const button of buttons) {
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
      show();
    });
    if (reducedMotion.matches) continue;
    for (const name of ["mouseenter", "focus"]) button.addEventListener(name, () => highlight(+button.dataset.label));
    for (const name of ["mouseleave", "blur"]) button.addEventListener(name, () => highlight(null));
  }
  for (const box of boxes) box.addEventListener("change", show);
  for (const [id, pressed] of [["all", "true"], ["none", "false"]]) {
    document.getElementById(id).addEventListener("click", () => {
      for (const button of buttons) button.setAttribute("aria-pressed", pressed);
      show();
    });
  }
})();
