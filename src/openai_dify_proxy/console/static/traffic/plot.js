// A small plot over time. Its library is loaded when the first plot is shown.

import { html, useEffect, useRef } from "../vendor/preact.js";

const HEIGHT = 160;

let loading = null;

/** Load uPlot, a classic script with a style sheet, once. */
function loadLibrary() {
  loading ??= new Promise((resolve, reject) => {
    const style = document.createElement("link");
    style.rel = "stylesheet";
    style.href = new URL("../vendor/uplot.css", import.meta.url);
    const script = document.createElement("script");
    script.src = new URL("../vendor/uplot.js", import.meta.url);
    script.onload = () => resolve(globalThis.uPlot);
    script.onerror = () => reject(new Error("The library for plots cannot be loaded."));
    document.head.append(style, script);
  });
  return loading;
}

/** `times` are in seconds since the epoch; each line is `{label, values}`, with null where there is nothing. */
export function Plot({ title, times, lines }) {
  const box = useRef(null);
  const plot = useRef(null);
  const data = [times, ...lines.map(({ values }) => values)];
  useEffect(() => {
    let closed = false;
    loadLibrary().then((uPlot) => {
      if (!closed) plot.current = new uPlot(options(box.current, lines), data, box.current);
    });
    const resize = () => plot.current?.setSize({ width: box.current.clientWidth, height: HEIGHT });
    addEventListener("resize", resize);
    return () => {
      closed = true;
      removeEventListener("resize", resize);
      plot.current?.destroy();
    };
  }, []);
  useEffect(() => plot.current?.setData(data), [times]);
  const latest = ({ values }) => shown(values.findLast((value) => value !== null));
  return html`<figure class="card plot">
    <figcaption><h2>${title}</h2><p>${lines.map((line, index) => html`<span class=${`line-${index}`}>${line.label} ${latest(line)}</span> `)}</p></figcaption>
    <div ref=${box} aria-hidden="true"></div>
  </figure>`;
}

function shown(value) {
  return value === undefined || value === null ? "–" : Math.round(value);
}

function options(box, lines) {
  // Functions, since the theme may change while the plot is shown.
  const colour = (index) => () => getComputedStyle(box.parentElement.querySelector(`.line-${index}`)).color;
  const area = () => colour(0)().replace(/^rgb\((.*)\)$/, "rgba($1, 0.1)");
  const axis = { stroke: () => getComputedStyle(box).color, grid: { show: false }, ticks: { show: false } };
  return {
    width: box.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    scales: { y: { range: (_, low, high) => [0, Math.max(high ?? 0, 1)] } },
    axes: [{ ...axis, space: 80, size: 28, values: (_, times) => times.map(clock) }, { ...axis, size: 48 }],
    series: [{}, ...lines.map(({ label }, index) => ({ label, stroke: colour(index), fill: index ? undefined : area, width: 1.5, points: { size: 5 } }))],
  };
}

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}
