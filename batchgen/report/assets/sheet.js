"use strict";
// The contact sheet: its filters, and the preview that a picture opens.

const SETTINGS_OF_SAMPLES = [
  ["size", (item) => (known(item.width) ? `${item.width} × ${item.height}` : null)],
  ["steps", (item) => item.steps],
  ["guidance", (item) => item.guidance],
  ["seed", (item) => item.seed],
  ["negative prompt", (item) => item.negative_prompt],
  ["shard", (item) => item.shard],
  ["reason", (item) => item.reason],
  ["job", (item) => item.job],
];
const MOST_VALUES = 60; // of a column, to be chosen from; beyond it there is a field to type in

function makeSheet(samples) {
  const items = samples.items;
  const sheet = byId("sheet");
  const drawn = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      target.src = items[target.dataset.place].thumb;
      drawn.unobserve(target);
    }
  }, { rootMargin: "600px" });
  const tiles = items.map((item, place) => makeTile(item, place, drawn));
  sheet.append(...tiles);
  const preview = makePreview(items, tiles);
  const filter = makeFilters(samples, (matches) => {
    tiles.forEach((tile, place) => { tile.hidden = !matches(items[place]); });
    const shown = tiles.filter((tile) => !tile.hidden);
    byId("shown").textContent = said(shown.length, samples);
    reach(shown[0]);
  });

  // One picture is in the order of the Tab key; the arrow keys go on from there.
  function reach(tile, focus = false) {
    for (const one of sheet.querySelectorAll(".sample[tabindex='0']")) one.tabIndex = -1;
    if (!tile) return;
    tile.firstChild.tabIndex = 0;
    if (focus) tile.firstChild.focus();
  }
  sheet.addEventListener("click", (event) => {
    const tile = event.target.closest("li");
    if (!tile) return;
    reach(tile);
    preview.open(tile, (left) => reach(left, true));
  });
  sheet.addEventListener("keydown", (event) => {
    const shown = tiles.filter((tile) => !tile.hidden);
    const place = shown.indexOf(event.target.closest("li"));
    const across = shown.filter((tile) => tile.offsetTop === shown[0].offsetTop).length;
    const goal = { ArrowLeft: place - 1, ArrowRight: place + 1, ArrowUp: place - across, ArrowDown: place + across,
      Home: 0, End: shown.length - 1 }[event.key];
    if (place < 0 || goal === undefined) return;
    event.preventDefault();
    if (shown[goal]) reach(shown[goal], true);
  });
  filter();
}

function said(count, samples) {
  const sampled = samples.shown < samples.of ? `, chosen evenly from ${integer(samples.of)}` : "";
  const all = plural(samples.items.length, "sample");
  return count === samples.items.length ? `${all}${sampled}` : `${integer(count)} of ${all}${sampled}`;
}

function makeTile(item, place, drawn) {
  const button = el("button", { type: "button", class: "sample", tabindex: "-1" });
  if (known(item.thumb)) {
    const image = el("img", { alt: "", decoding: "async", "data-place": place });
    drawn.observe(image);
    button.append(el("span", { class: "frame" }, image));
  } else {
    const what = item.status === "ok" ? "no picture here" : item.status;
    button.append(el("span", { class: `frame none ${item.status === "failed" ? "" : "filtered"}` }, el("b", {}, what),
      known(item.reason) ? data(item.reason, "span", "clamped") : null));
  }
  button.append(data(item.prompt || item.key, "span", "caption clamped"));
  return el("li", {}, button);
}

function makeFilters(samples, show) {
  const [text, status, column] = [byId("filter-text"), byId("filter-status"), byId("filter-column")];
  const [value, contains] = [byId("filter-value"), byId("filter-contains")];
  const texts = samples.items.map((item) =>
    [item.key, item.prompt, item.negative_prompt, item.reason, ...Object.values(item.columns)].join("\n").toLowerCase());
  const place = new Map(samples.items.map((item, index) => [item, index]));
  const counts = counted(samples.items, (item) => item.status);
  status.append(el("option", { value: "" }, "any"), ...[...counts].map(([name, count]) =>
    el("option", { value: name }, `${name} (${integer(count)})`)));

  const ofColumns = samples.columns.map((name) => [name, (item) => own(item.columns, name)]);
  const readers = [null, ...ofColumns, ...SETTINGS_OF_SAMPLES.filter(([, read]) => samples.items.some((item) =>
    known(read(item)) && read(item) !== ""))];
  const option = (index) => el("option", { value: index }, readers[index][0]);
  const indices = readers.map((_, index) => index).slice(1);
  column.append(el("option", { value: 0 }, "any"));
  for (const [label, some] of [["Columns", indices.slice(0, ofColumns.length)], ["Settings", indices.slice(ofColumns.length)]]) {
    if (some.length) column.append(el("optgroup", { label }, ...some.map(option)));
  }

  function filter() {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const [read, wanted] = [readers[column.value]?.[1], contains.value.toLowerCase()];
    show((item) => words.every((word) => texts[place.get(item)].includes(word))
      && (!status.value || item.status === status.value)
      && (!read || matches(String(read(item) ?? ""), wanted)));
  }
  // The first option is "any", the second, where there is one, stands for samples without a value.
  const matches = (found, wanted) => (contains.hidden
    ? value.selectedIndex <= 0 || found === value.value
    : found.toLowerCase().includes(wanted));
  function choose() {
    const read = readers[column.value]?.[1];
    const found = read ? counted(samples.items, (item) => String(read(item) ?? "")) : new Map();
    contains.hidden = found.size <= MOST_VALUES;
    contains.value = "";
    value.hidden = !contains.hidden;
    value.disabled = !read;
    value.replaceChildren(el("option", { value: "" }, "any"), ...[...found].map(([name, count]) =>
      el("option", { value: name }, `${name.slice(0, 80) || "none"} (${integer(count)})`)));
    filter();
  }
  column.addEventListener("change", choose);
  for (const field of [text, contains]) field.addEventListener("input", filter);
  for (const field of [status, value]) field.addEventListener("change", filter);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("clear").addEventListener("click", () => { byId("filters").reset(); choose(); });
  return choose;
}

// {value: how often}, the most frequent first.
function counted(items, read) {
  const counts = new Map();
  for (const item of items) counts.set(read(item), (counts.get(read(item)) ?? 0) + 1);
  return new Map([...counts].sort((one, other) => other[1] - one[1]));
}

function makePreview(items, tiles) {
  const dialog = byId("preview");
  let [current, closed] = [null, null];
  const shown = () => tiles.filter((tile) => !tile.hidden);

  function go(step) {
    const next = shown()[shown().indexOf(current) + step];
    if (next) draw(next);
  }
  function draw(tile) {
    current = tile;
    const [all, item] = [shown(), items[tiles.indexOf(tile)]];
    const place = all.indexOf(tile);
    byId("preview-key").textContent = item.key;
    byId("preview-place").textContent = `${integer(place + 1)} of ${integer(all.length)}`;
    // Not `disabled`: a button that has the focus would keep the keys to itself.
    byId("previous").setAttribute("aria-disabled", place === 0);
    byId("next").setAttribute("aria-disabled", place === all.length - 1);
    byId("preview-picture").replaceChildren(known(item.thumb)
      ? el("img", { src: item.thumb, alt: item.prompt })
      : el("div", { class: "frame none" }, el("b", {}, item.status === "ok" ? "no picture here" : item.status)));
    byId("preview-about").replaceChildren(...about(item));
    dialog.scrollTop = 0;
  }
  byId("previous").addEventListener("click", () => go(-1));
  byId("next").addEventListener("click", () => go(1));
  byId("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    go(step);
  });
  dialog.addEventListener("close", () => closed(current));
  return {
    open(tile, whenClosed) {
      closed = whenClosed;
      draw(tile);
      dialog.showModal();
    },
  };
}

function about(item) {
  const rows = [
    ["Status", item.status], ["Reason", item.reason], ["Negative prompt", item.negative_prompt], ["Seed", item.seed],
    ["Size", known(item.width) ? `${item.width} × ${item.height} px` : null], ["Steps", item.steps],
    ["Guidance", item.guidance], ["Job", item.job], ["Shard", item.shard], ["Member", item.member],
  ];
  const pairs = (some) => some.filter(([, value]) => known(value) && value !== "").flatMap(([name, value]) =>
    [data(name, "dt"), data(value, "dd")]);
  const columns = Object.entries(item.columns);
  return [
    data(item.prompt, "p", "prompt"),
    el("dl", { class: "facts" }, ...pairs(rows)),
    columns.length ? el("dl", { class: "facts columns" }, ...pairs(columns)) : null,
    known(item.extract) ? command(item.extract) : null,
  ].filter(known);
}

function command(text) {
  const button = el("button", { type: "button" }, "Copy");
  const code = data(text, "code");
  button.addEventListener("click", async () => {
    button.textContent = await copied(text, code) ? "Copied" : "Select it and copy";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  return el("div", {}, el("p", { class: "muted" }, "The command that writes it out"),
    el("div", { class: "command" }, code, button));
}

async function copied(text, code) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch { // not every browser lets a file do this
    getSelection().selectAllChildren(code);
    return document.execCommand("copy");
  }
}
