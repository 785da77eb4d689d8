// Asks for the library that draws the map before the page's modules are read, so that the browser
// compiles its megabytes beside everything else. No module: those wait for the whole page.

window.askPlotly = () => {
  const asked = new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "/plotly.js";
    script.onload = resolve;
    script.onerror = () => reject(new Error("The library that draws the map did not load."));
    document.head.append(script);
  });
  asked.catch(() => {}); // told where it is awaited
  return asked;
};
window.plotly = window.askPlotly();
