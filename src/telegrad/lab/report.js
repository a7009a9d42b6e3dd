"use strict";
(() => {
  const data = JSON.parse(document.getElementById("payload").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isAccuracy = data.metric === "accuracy";
  const symbols = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross"];
  const dashes = ["solid", "dash", "dot", "dashdot"];
  const hidden = new Set();
  const state = { x: "bits_up", y: "test", logX: true, logY: data.higherIsBetter === false, bands: true };
  // Each axis keeps the scale that suits it until the reader chooses otherwise.
  const logByNature = { bits_up: true, bits_total: true, step: false, epoch: false, "10 Mbit/s": true, "100 Mbit/s": true, "10 Gbit/s": true };

  const quantities = { test: "test " + data.metric };
  if (isAccuracy) quantities.error = "test error";
  quantities.train_loss = "training loss";

  const element = (tag, attributes = {}, text = "") => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.textContent = text;
    return made;
  };
  // Plotly reads markup in its texts; a label is text.
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const colour = (style) => (dark.matches ? data.dark : data.light)[style % data.light.length];
  const faint = (hex) => `rgba(${[1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)).join(",")},0.16)`;
  const dash = (style) => dashes[Math.floor(style / data.light.length) % dashes.length];
  const symbol = (style) => symbols[style % symbols.length];
  const styleOf = new Map(data.curves.map((curve) => [curve.label, curve.style]));
  const cssVariable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const family = getComputedStyle(document.body).fontFamily;
  const isNarrow = () => window.innerWidth < 640;

  const layout = (more) => {
    const axis = { gridcolor: cssVariable("--line"), linecolor: cssVariable("--line"), zeroline: false };
    const made = {
      font: { family, size: 13, color: cssVariable("--soft") },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, dragmode: isNarrow() ? false : "zoom",
      margin: { l: 62, r: 14, t: 28, b: 54 },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: cssVariable("--soft"), activecolor: cssVariable("--accent") },
      hoverlabel: { bgcolor: cssVariable("--card"), bordercolor: cssVariable("--line"), font: { color: cssVariable("--ink"), family }, namelength: -1 },
      ...more,
    };
    made.xaxis = { ...axis, ...more.xaxis };
    made.yaxis = { ...axis, ...more.yaxis };
    return made;
  };
  // The buttons are named one by one, because Plotly's own choice would offer to upload the plot.
  const draw = (id, traces, more) =>
    Plotly.react(id, traces, layout(more), {
      responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "", displayModeBar: isNarrow() ? false : "hover",
      modeBarButtons: [["toImage"], ["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
    });

  // On a logarithmic axis: 1, 2 and 5 of each decade, or the decades alone where there are many.
  const ticks = (values) => {
    const positive = values.filter((value) => value > 0);
    return Math.max(...positive) / Math.min(...positive) > 1e4 ? 1 : "D2";
  };

  const valuesOf = (curve) => {
    if (state.y !== "error") return curve.y[state.y];
    const flip = (values) => values.map((value) => (value === null ? null : 1 - value));
    return { mean: flip(curve.y.test.mean), low: flip(curve.y.test.high), high: flip(curve.y.test.low) };
  };

  const drawCurves = () => {
    const inPercent = isAccuracy && state.y !== "train_loss";
    const traces = [];
    for (const curve of data.curves) {
      if (hidden.has(curve.label)) continue;
      const y = valuesOf(curve);
      const kept = curve.x[state.x].map((_, i) => i).filter((i) => y.mean[i] !== null && (!state.logX || curve.x[state.x][i] > 0) && (!state.logY || y.mean[i] > 0));
      const at = (values) => kept.map((i) => values[i]);
      const x = at(curve.x[state.x]), ink = colour(curve.style);
      if (state.bands && kept.some((i) => y.high[i] > y.low[i])) {
        // Zero has no place on a logarithmic axis: the band then ends at the mean.
        const low = kept.map((i) => (state.logY && y.low[i] <= 0 ? y.mean[i] : y.low[i]));
        traces.push({ x: x.concat([...x].reverse()), y: at(y.high).concat(low.reverse()), mode: "lines", line: { width: 0 }, fill: "toself", fillcolor: faint(ink), hoverinfo: "skip", legendgroup: curve.label });
      }
      traces.push({
        x, y: at(y.mean), name: plain(curve.label), mode: "lines+markers", legendgroup: curve.label,
        line: { color: ink, width: 2, dash: dash(curve.style) }, marker: { color: ink, size: 6, symbol: symbol(curve.style), maxdisplayed: 12 },
        hovertemplate: `<b>%{fullData.name}</b><br>%{y:${inPercent ? ".2%" : ".4g"}}<br>${data.axes[state.x]}: %{x:.4s}<extra></extra>`,
      });
    }
    const drawn = { x: traces.flatMap((trace) => trace.x), y: traces.flatMap((trace) => trace.y) };
    const logarithmic = (values) => ({ type: "log", dtick: ticks(values) });
    const lines = [];
    if (data.target !== null && state.y !== "train_loss") {
      const target = state.y === "error" ? 1 - data.target : data.target;
      if (!state.logY || target > 0) lines.push(target);
    }
    draw("curves", traces, {
      height: isNarrow() ? 360 : 470,
      hovermode: "closest",
      xaxis: { title: { text: data.axes[state.x] }, exponentformat: "SI", ...(state.logX ? logarithmic(drawn.x) : { type: "linear" }) },
      yaxis: { title: { text: plain(quantities[state.y]) }, tickformat: inPercent ? "~%" : "~g", ...(state.logY ? logarithmic(drawn.y) : { type: "linear" }) },
      shapes: lines.map((y) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line: { color: cssVariable("--soft"), width: 1, dash: "dot" } })),
      annotations: lines.map((y) => ({ xref: "paper", x: 0, xanchor: "left", y: state.logY ? Math.log10(y) : y, yanchor: "bottom", text: "target", showarrow: false, font: { size: 12 } })),
    });
  };

  const drawSearch = () => {
    const traces = [], values = data.results.flatMap((row) => row.searched.filter((run) => !run.diverged).map((run) => run.validation));
    const worst = values.length ? (data.higherIsBetter ? Math.min(...values) : Math.max(...values)) : 0;
    data.results.forEach((row, place) => {
      if (hidden.has(row.label)) return;
      const style = styleOf.get(row.label) ?? place, ink = colour(style);
      const good = row.searched.filter((run) => !run.diverged), lost = row.searched.filter((run) => run.diverged), chosen = good.filter((run) => run.lr === row.lr);
      const common = { name: plain(row.label), hovertemplate: `<b>%{fullData.name}</b><br>lr %{x}<br>%{y:${isAccuracy ? ".2%" : ".4g"}}<extra></extra>` };
      traces.push({ ...common, x: good.map((run) => run.lr), y: good.map((run) => run.validation), mode: "lines+markers", line: { color: ink, width: 2, dash: dash(style) }, marker: { color: ink, size: 6, symbol: symbol(style) } });
      traces.push({ ...common, x: chosen.map((run) => run.lr), y: chosen.map((run) => run.validation), mode: "markers", marker: { color: ink, size: 15, symbol: "circle-open", line: { width: 2 } } });
      if (lost.length) traces.push({ ...common, x: lost.map((run) => run.lr), y: lost.map(() => worst), mode: "markers", marker: { color: ink, size: 9, symbol: "x" }, hovertemplate: "<b>%{fullData.name}</b><br>lr %{x}: diverged<extra></extra>" });
    });
    const positive = values.every((value) => value > 0);
    const tried = [...new Set(data.results.flatMap((row) => row.searched.map((run) => run.lr)))].sort((a, b) => a - b);
    draw("search", traces, {
      height: isNarrow() ? 300 : 360, hovermode: "closest",
      xaxis: { type: "log", title: { text: "learning rate" }, tickvals: tried, ticktext: tried.map(String) },
      yaxis: { title: { text: plain("validation " + data.metric) }, tickformat: isAccuracy ? "~%" : "~g", ...(data.higherIsBetter === false && positive ? { type: "log", dtick: ticks(values) } : { type: "linear" }) },
    });
  };

  const drawAll = () => { drawCurves(); drawSearch(); };

  const choice = (id, options, key, then) => {
    const box = document.getElementById(id);
    for (const [value, text] of Object.entries(options)) {
      const button = element("button", { type: "button", "aria-pressed": String(state[key] === value) }, text);
      button.addEventListener("click", () => {
        state[key] = value;
        for (const other of box.children) other.setAttribute("aria-pressed", String(other === button));
        then();
      });
      box.append(button);
    }
  };
  const toggle = (id, key) => {
    const button = document.getElementById(id);
    button.setAttribute("aria-pressed", String(state[key]));
    button.addEventListener("click", () => { state[key] = !state[key]; button.setAttribute("aria-pressed", String(state[key])); drawCurves(); });
  };
  const setScale = (id, key, value) => { state[key] = value; document.getElementById(id).setAttribute("aria-pressed", String(value)); };

  choice("choose-y", quantities, "y", () => { setScale("log-y", "logY", state.y !== "test" || data.higherIsBetter === false); drawCurves(); });
  choice("choose-x", { bits_up: "uplink bits", bits_total: "total bits", step: "steps", epoch: "epochs", "10 Mbit/s": "at 10 Mbit/s", "100 Mbit/s": "at 100 Mbit/s", "10 Gbit/s": "at 10 Gbit/s" }, "x", () => { setScale("log-x", "logX", logByNature[state.x]); drawCurves(); });
  toggle("log-x", "logX");
  toggle("log-y", "logY");
  toggle("bands", "bands");

  const legend = document.getElementById("legend");
  const swatches = [];
  data.curves.forEach((curve) => {
    const button = element("button", { type: "button", "aria-pressed": "true", title: "show or hide; double click: show this one alone" });
    const swatch = element("span", { "aria-hidden": "true" });
    swatches.push([swatch, curve.style]);
    button.append(swatch, element("span", {}, curve.label));
    const show = () => {
      data.curves.forEach((other, i) => legend.children[i].setAttribute("aria-pressed", String(!hidden.has(other.label))));
      drawCurves();
      drawSearch();
    };
    button.addEventListener("click", () => { if (!hidden.delete(curve.label)) hidden.add(curve.label); show(); });
    button.addEventListener("dblclick", () => {
      const alone = data.curves.every((other) => other === curve || hidden.has(other.label));
      hidden.clear();
      if (!alone) data.curves.forEach((other) => other === curve || hidden.add(other.label));
      show();
    });
    legend.append(button);
  });
  const shapes = ["<circle cx='13' cy='6' r='4'/>", "<rect x='9.5' y='2.5' width='7' height='7'/>", "<path d='M13 1l5 5-5 5-5-5z'/>", "<path d='M13 1l5 9h-10z'/>", "<path d='M13 11l5-9h-10z'/>", "<path d='M11.5 1h3v3.5h3.5v3h-3.5v3.500h-3v-3.500h-3.500v-3h3.500z'/>"];
  const strokes = ["", "6 3", "2 2", "6 2 2 2"];
  const colourSwatches = () => swatches.forEach(([swatch, style]) => {
    const stroke = strokes[Math.floor(style / data.light.length) % strokes.length];
    swatch.innerHTML = `<svg width="26" height="12" fill="${colour(style)}"><path d="M0 6h26" stroke="${colour(style)}" stroke-width="2" stroke-dasharray="${stroke}"/>${shapes[style % shapes.length]}</svg>`;
  });

  const body = document.querySelector("#results tbody");
  document.querySelectorAll("#results thead th").forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const ascending = heading.getAttribute("aria-sort") !== "ascending";
      document.querySelectorAll("#results thead th").forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const key = (row) => row.children[column].dataset.value;
      const compare = (a, b) => {
        if (column === 0) return key(a).localeCompare(key(b));
        return Number(key(a)) - Number(key(b));
      };
      // What was not measured stays below, whichever the order.
      const rows = [...body.rows], known = rows.filter((row) => key(row) !== ""), unknown = rows.filter((row) => key(row) === "");
      body.append(...known.sort((a, b) => (ascending ? 1 : -1) * compare(a, b)), ...unknown);
    });
  });

  dark.addEventListener("change", () => { colourSwatches(); drawAll(); });
  let narrow = isNarrow();
  window.addEventListener("resize", () => { if (narrow !== isNarrow()) { narrow = isNarrow(); drawAll(); } });
  colourSwatches();
  drawAll();
})();
