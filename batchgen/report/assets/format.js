"use strict";
// Numbers, sizes and times as a person reads them, and elements. Data of the run enters the page by `el` only: as text
// nodes and attributes, never as markup.

const byId = (id) => document.getElementById(id);
const known = (value) => value !== null && value !== undefined;

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (known(value) && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((one) => known(one) && one !== ""));
  return node;
}

// Text that somebody else wrote; its direction and line breaks stay within it.
const data = (text, tag = "span", classes = "") => el(tag, { class: `data ${classes}`.trim(), dir: "auto" }, String(text));

// The same in a cell, which is nothing where there is no text.
const text = (value, tag, classes) => (known(value) && value !== "" ? data(value, tag, classes) : null);

const integer = (value) => Math.round(value).toLocaleString("en-US");
const plural = (count, noun, nouns = `${noun}s`) => `${integer(count)} ${count === 1 ? noun : nouns}`;

function decimal(value, digits = 3) {
  if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(1);
  const places = Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(value) || 1)));
  return value.toLocaleString("en-US", { maximumFractionDigits: Math.min(places, 3) });
}

const UNITS = [["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]];
function bytes(value) {
  const [unit, size] = UNITS.find((one) => value >= one[1]) ?? ["B", 1];
  return `${decimal(value / size)} ${unit}`;
}

function duration(seconds) {
  if (seconds < 10) return `${decimal(seconds, 2)} s`;
  const whole = Math.round(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (value) => String(value).padStart(2, "0");
  if (hours >= 100) return `${integer(hours)} h`;
  if (hours) return `${hours} h ${two(minutes)} min`;
  return minutes ? `${minutes} min ${two(rest)} s` : `${rest} s`;
}

const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const SHORT_CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const DATE = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

function moment(text) {
  const at = new Date(text);
  return text && !Number.isNaN(at.getTime()) ? at : null;
}
const dated = (text) => { const at = moment(text); return at ? `${DATE.format(at)}, ${SHORT_CLOCK.format(at)}` : null; };
const stamped = (text) => { const at = moment(text); return at ? `${DAY.format(at)}, ${CLOCK.format(at)}` : String(text ?? ""); };

function span(began, ended) {
  const [from, to] = [moment(began), moment(ended)];
  if (!from || !to) return from ? `since ${dated(began)}` : null;
  const sameDay = DATE.format(from) === DATE.format(to);
  return `${dated(began)} – ${sameDay ? SHORT_CLOCK.format(to) : dated(ended)}`;
}

// The value of a row in a JSON object: a column may be called `constructor`.
const own = (object, name) => (Object.hasOwn(object, name) ? object[name] : undefined);

// A table of rows. Columns: [heading, row => text or node, class]; a column without any value is left out.
function table(columns, rows, atFirst = 20) {
  const shown = columns.filter(([, cell]) => rows.some((row) => known(cell(row)) && cell(row) !== ""));
  const body = el("tbody", { role: "rowgroup" });
  const add = (some) => body.append(...some.map((row) => el("tr", { role: "row" }, ...shown.map(([heading, cell, classes]) => {
    const value = cell(row);
    const nothing = !known(value) || value === "";
    return el("td", { role: "cell", class: [classes, nothing && "nothing"].filter(Boolean).join(" ") || null, "data-label": heading },
      typeof value === "number" ? integer(value) : value);
  }))));
  const head = el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...shown.map(([heading, , classes]) =>
    el("th", { role: "columnheader", scope: "col", class: classes ?? null }, heading))));
  add(rows.slice(0, atFirst));
  const parts = [el("table", { role: "table", class: "table" }, head, body)];
  if (rows.length > atFirst) {
    const more = el("button", { type: "button" }, `Show all ${integer(rows.length)}`);
    more.addEventListener("click", () => { add(rows.slice(atFirst)); more.remove(); });
    parts.push(more);
  }
  return parts;
}

// Horizontal bars that share one scale. Rows: [label, seconds].
function bars(rows) {
  const most = Math.max(...rows.map(([, value]) => value));
  const total = rows.reduce((sum, [, value]) => sum + value, 0);
  return el("ul", { class: "bars" }, ...rows.map(([label, value]) => {
    const bar = el("i");
    bar.style.width = `${100 * value / most}%`;
    const share = 100 * value / total;
    return el("li", {}, data(label), el("span", { class: "track", "aria-hidden": "true" }, bar),
      el("span", { class: "number" }, duration(value)),
      el("span", { class: "number muted" }, share < 1 ? "< 1%" : `${Math.round(share)}%`));
  }));
}

const nothing = (text) => el("p", { class: "muted" }, text);
