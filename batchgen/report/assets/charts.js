"use strict";
// Images/s and memory over time, drawn by uPlot.

const COLOURS = 8;
const MOST_IN_LEGEND = 9;
const HEIGHT_PX = 260;
const DASH = { predicted: [7, 5], used: [2, 4] };

// A colour of the style sheet in the theme that is in use now: a canvas takes no variables.
function colour(name) {
  const probe = byId("progress");
  probe.style.color = `var(--${name})`;
  const found = getComputedStyle(probe).color;
  probe.style.color = "";
  return found;
}

const nameOf = (one) => [one.job, one.worker].filter(known).join(" · ");

// What uPlot draws: one time axis for all series. lines: [{t_s, values, ...}].
function joined(lines, from_s) {
  const tables = lines.map((line) => [line.t_s.map((t) => t + from_s), line.values]);
  return tables.length === 1 ? tables[0] : uPlot.join(tables);
}

const AXIS_S = [1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 2592000];

// The clock of whoever looks at it, with the day where it changes; or the time since the start, where that is unknown.
function timeLabels(hasClock) {
  if (!hasClock) return (_, ticks) => ticks.map((tick) => duration(tick).replace(/ 00 (s|min)$/, ""));
  return (_, ticks, axis, space, step_s) => {
    let day = null;
    return ticks.map((tick) => {
      const at = new Date(1000 * tick);
      const clock = (step_s < 60 ? CLOCK : SHORT_CLOCK).format(at);
      const isNew = DAY.format(at) !== day;
      day = DAY.format(at);
      return isNew ? `${clock}\n${day}` : clock;
    });
  };
}

// Thin lines where something happened, such as memory that was refused.
function marks(events) {
  return { hooks: { draw: (chart) => {
    const { ctx, bbox } = chart;
    ctx.save();
    ctx.strokeStyle = colour("bad");
    ctx.lineWidth = devicePixelRatio;
    for (const { at_s } of events) {
      const x = Math.round(chart.valToPos(at_s, "x", true));
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + 8 * devicePixelRatio);
      ctx.stroke();
    }
    ctx.restore();
  } } };
}

function drawChart(place, lines, unit, from_s, events) {
  const [text, grid] = [colour("muted"), colour("line")];
  const font = `12px ${getComputedStyle(document.body).fontFamily}`;
  const axis = { stroke: text, font, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1, size: 4 } };
  const number = (value) => (known(value) ? `${decimal(value)} ${unit}` : "–");
  const isAlone = (line) => line.t_s.length === 1;
  return new uPlot({
    width: place.clientWidth,
    height: HEIGHT_PX,
    plugins: [marks(events)],
    cursor: { sync: { key: "time", setSeries: false }, points: { size: 7 }, y: false },
    legend: { show: lines.length <= MOST_IN_LEGEND },
    scales: { x: { time: false }, y: { range: (_, least, most) => [0, (most || 1) * 1.08] } },
    axes: [
      { ...axis, incrs: AXIS_S, values: timeLabels(from_s > 0), space: 70, size: 44 },
      { ...axis, values: (_, ticks) => ticks.map((tick) => decimal(tick)), size: 52, label: unit, labelSize: 18, labelFont: font },
    ],
    series: [
      { label: "Time", value: (_, t) => (known(t) ? (from_s > 0 ? CLOCK.format(new Date(1000 * t)) : duration(t)) : "–") },
      ...lines.map((line) => ({
        label: line.label, stroke: colour(`series-${line.colour % COLOURS}`), width: lines.length > MOST_IN_LEGEND ? 1 : line.dash ? 1.5 : 2, dash: line.dash,
        points: { show: isAlone(line), size: 6 }, value: (_, value) => number(value),
      })),
    ],
  }, joined(lines, from_s), place);
}

const spread = (values) => [...values].sort((one, other) => one - other);
const median = (values) => spread(values)[Math.floor(values.length / 2)];

function ofSpeed(series) {
  return series.map((one) => ({ t_s: one.t_s, values: one.images_per_s, label: nameOf(one), colour: one.place }));
}

function ofMemory(series) {
  const gib = (values) => values.map((value) => (known(value) ? value / 2 ** 30 : null));
  return series.flatMap((one) => [
    ["measured peak", one.peak_bytes, undefined],
    ["predicted", one.predicted_bytes, DASH.predicted],
    ["used by all processes", one.device_used_bytes, DASH.used],
  ].filter(([, values]) => values?.some(known)).map(([what, values, dash]) => (
    { t_s: one.t_s, values: gib(values), dash, label: series.length > 1 ? `${nameOf(one)} ${what}` : what, colour: one.place }
  )));
}

function makeCharts(report) {
  const series = report.series.filter((one) => one.t_s.length).map((one, place) => ({ ...one, place }));
  const from_s = (moment(report.run.began_at)?.getTime() ?? 0) / 1000;
  const events = report.events.filter((one) => moment(one.at)).map((one) => ({ at_s: moment(one.at).getTime() / 1000 }));
  const choice = byId("worker");
  choice.append(el("option", { value: "" }, `all (${series.length})`), ...series.map((one) =>
    el("option", { value: one.place }, nameOf(one))));
  byId("worker-choice").hidden = series.length < 2;
  let charts = [];
  function draw() {
    charts.forEach((chart) => chart.destroy());
    charts = [];
    const some = choice.value === "" ? series : [series[choice.value]];
    for (const [name, lines, unit, say] of [
      ["speed", ofSpeed(some), "images/s", speedText], ["memory", ofMemory(some), "GiB", memoryText],
    ]) {
      const drawn = lines.filter((line) => line.values.some(known));
      const place = byId(`${name}-chart`);
      byId(`${name}-text`).textContent = say(report, some, drawn);
      place.hidden = !drawn.length;
      if (!drawn.length) continue;
      place.setAttribute("role", "img");
      place.setAttribute("aria-label", byId(`${name}-text`).textContent);
      charts.push(drawChart(place, drawn, unit, from_s, events));
    }
  }
  choice.addEventListener("change", draw);
  new ResizeObserver(() => charts.forEach((chart) => {
    chart.setSize({ width: chart.root.parentElement.clientWidth, height: HEIGHT_PX });
  })).observe(byId("speed-chart"));
  draw();
  return draw;
}

function speedText(report, series, lines) {
  if (!lines.length) return "No speed was recorded yet.";
  const rates = lines.flatMap((line) => line.values.filter(known));
  const left = series.length < report.series_of ? ` The ${series.length} busiest of ${integer(report.series_of)} workers are drawn.` : "";
  const marked = report.events.length ? " Red ticks at the top are out-of-memory errors, crashes and other events." : "";
  return `${lines.length > 1 ? "One worker makes" : "It made"} ${decimal(median(rates))} images/s at the median, `
    + `${decimal(Math.max(...rates))} at most.${left}${marked} Drag to look closer, double-click to see all.`;
}

function memoryText(report, series, lines) {
  if (!lines.length) return "No memory was recorded yet.";
  const most = (name) => Math.max(...series.flatMap((one) => (one[name] ?? []).filter(known)), 0);
  const [peak, predicted, used] = ["peak_bytes", "predicted_bytes", "device_used_bytes"].map(most);
  if (series.every((one) => one.memory === "host")) {
    return `The run was on the CPU, so this is the memory of the worker process: ${bytes(peak)} at most.`;
  }
  const share = peak && predicted ? `, ${decimal(100 * peak / predicted)}% of it` : "";
  return [
    `Device memory at its peak in each unit of work: ${bytes(peak)} at most (solid lines)`,
    predicted ? `, predicted were ${bytes(predicted)} (dashed${share.replace(", ", "; measured is ")})` : "",
    used ? `; all processes together used ${bytes(used)} (dotted)` : "", ".",
  ].join("");
}
