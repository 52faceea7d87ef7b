"use strict";
// Puts the page together from the report.

const STATES = {
  done: ["Done", "good"], running: ["Running", "live"], unfinished: ["Unfinished", "warn"],
  empty: ["Nothing was made yet", ""], broken: ["Broken", "bad"],
};
const STATUSES = [["ok", "good", "made"], ["failed", "bad", "failed"], ["filtered", "warn", "filtered"], ["open", "rest", "open"]];
const MOST_PROBLEMS = 5;

function makeHead({ run, totals, made_at }) {
  const [word, kind] = STATES[run.state] ?? [run.state, ""];
  const isFlawed = run.state === "done" && totals.failed > 0;
  byId("state").textContent = isFlawed ? "Done, with failed images" : word;
  byId("state").className = `state ${isFlawed ? "warn" : kind}`;
  const times = [span(run.began_at, run.ended_at), known(totals.wall_s) && totals.wall_s > 0 ? `${duration(totals.wall_s)} of work` : null];
  byId("when").textContent = times.filter(Boolean).join("  ·  ");
  const rest = STATUSES.slice(1).filter(([name]) => totals[name] > 0).map(([name, , noun]) =>
    (name === "open" ? `${integer(totals.open)} not made yet` : `${integer(totals[name])} ${noun}`));
  byId("verdict").textContent = [`${integer(totals.ok ?? 0)} of ${plural(totals.planned ?? 0, "image")} made`, ...rest].join(", ");
  for (const [name, tone] of STATUSES) {
    if (!(totals[name] > 0)) continue;
    const part = el("i");
    part.style.flex = `${totals[name]} 0 0`;
    part.style.background = `var(--${tone})`;
    byId("progress").append(part);
  }
  const problems = run.problems.map((text) => data(text, "li"));
  byId("problems").hidden = !problems.length;
  byId("problems").append(el("ul", {}, ...problems.slice(0, MOST_PROBLEMS)));
  if (problems.length > MOST_PROBLEMS) {
    byId("problems").append(el("details", {}, el("summary", {}, `${integer(problems.length - MOST_PROBLEMS)} more`),
      el("ul", {}, ...problems.slice(MOST_PROBLEMS))));
  }
  const snapshot = run.state === "running" ? "The run was under way then; batchgen report writes this page again. " : "";
  byId("made").textContent = `Written ${dated(made_at) ?? ""} by batchgen. ${snapshot}Times are in your time zone.`;
}

function makeTotals({ totals, rejects }) {
  const tiles = [
    ["Images", integer(totals.ok ?? 0), `of ${integer(totals.planned ?? 0)} planned`],
    ["Failed", totals.failed, null, totals.failed > 0 && "bad"],
    ["Filtered", totals.filtered || null],
    ["Rejected rows", rejects.count, null, rejects.count > 0 && "warn"],
    ["Speed", known(totals.images_per_s) ? [decimal(totals.images_per_s), "images/s"] : null],
    ["Time", known(totals.wall_s) ? duration(totals.wall_s) : null, totals.workers > 1 && known(totals.device_s) ? `${duration(totals.device_s)} over all workers` : null],
    ["Workers", totals.workers],
    ["Shards", known(totals.shards_done) ? integer(totals.shards_done) : null, `of ${integer(totals.shards ?? 0)}`],
    ["On disk", known(totals.bytes) ? bytes(totals.bytes) : null],
    ["Out of memory", totals.ooms, null, totals.ooms > 0 && "warn"],
    ["Tried again", totals.retries],
    ["GPU hours", known(totals.gpu_hours) ? decimal(totals.gpu_hours) : null],
    ["Cost", known(totals.cost) ? totals.cost.toLocaleString("en-US", { maximumFractionDigits: 2 }) : null, "by price_per_gpu_hour"],
  ];
  byId("totals").append(...tiles.filter(([, value]) => known(value)).map(([label, value, note, tone]) => {
    const [number, unit] = Array.isArray(value) ? value : [typeof value === "number" ? integer(value) : value, null];
    return el("div", { class: tone || null }, el("dt", {}, label),
      el("dd", {}, number, unit ? el("small", {}, ` ${unit}`) : null), known(note) ? el("dd", { class: "note" }, note) : null);
  }));
}

function makeJobs(jobs) {
  byId("jobs").hidden = !jobs.length;
  byId("jobs").append(...table([
    ["Job", (job) => data(job.name)], ["State", (job) => (STATES[job.state] ?? [job.state])[0]],
    ["Began", (job) => dated(job.began_at), "fixed"],
    ["Images", (job) => job.totals?.ok, "number"], ["Failed", (job) => job.totals?.failed, "number"],
    ["Time", (job) => (known(job.totals?.wall_s) ? duration(job.totals.wall_s) : null), "number"],
    ["Problems", (job) => (job.problems?.length ? data(job.problems.join("\n")) : null)],
    ["Directory", (job) => data(job.dir, "code")],
  ], jobs, 100));
}

function makeWorkers({ workers, totals }) {
  if (!workers.length) return;
  byId("workers").append(...table([
    ["Job", (one) => text(one.job)], ["Worker", (one) => data(one.id)],
    ["Device", (one) => text(one.device)], ["Host", (one) => text(one.host)],
    ["State", (one) => one.state], ["Images", (one) => one.images, "number"],
    ["Busy", (one) => (known(one.busy_s) ? duration(one.busy_s) : null), "number"],
    ["Images/s", (one) => (known(one.images_per_s) ? decimal(one.images_per_s) : null), "number"],
  ], workers));
  if (totals.workers > workers.length) byId("workers").append(nothing(`${integer(totals.workers)} workers in all.`));
}

function makeTime({ stages, waits }) {
  const rows = (seconds) => Object.entries(seconds).filter(([, value]) => value > 0);
  const [ofStages, ofWaits] = [rows(stages), rows(waits).sort((one, other) => other[1] - one[1])];
  byId("stages").append(ofStages.length ? bars(ofStages) : nothing("Nothing was made yet."));
  byId("waits").append(ofWaits.length ? bars(ofWaits) : nothing("No waits were recorded."));
}

function policyText(policy) {
  if (typeof policy !== "object" || policy === null) return String(policy ?? "");
  return Object.entries(policy).filter(([, value]) => known(value)).map(([name, value]) =>
    `${name}=${typeof value === "object" ? JSON.stringify(value) : value}`).join("  ");
}

function makeEvents({ policies, events }) {
  const common = [["Time", (one) => stamped(one.at), "fixed"], ["Worker", (one) => data(nameOf(one))]];
  const count = ["Count", (one) => (one.count > 1 ? one.count : null), "number"];
  byId("policies").append(...(policies.length ? table([
    ...common, ["Size", (one) => one.size, "fixed"], ["Policy", (one) => data(policyText(one.policy), "span", "mono")],
    ["Why", (one) => text(one.why)], count,
  ], policies) : [nothing("No policy was chosen yet.")]));
  byId("happened").append(...(events.length ? table([
    ...common, ["What", (one) => data(one.what)], ["Details", (one) => text(one.text)], count,
  ], events) : [nothing("None.")]));
}

function makeFailures({ failures, rejects }) {
  const reasons = (some) => el("ul", { class: "reasons" }, ...some.map(({ reason, count }) =>
    el("li", {}, el("b", {}, integer(count)), data(reason))));
  const more = ({ count, shown }) => (shown.length < count
    ? nothing(`${integer(shown.length)} of ${integer(count)} are listed.`) : null);
  const fill = (id, found, columns) => byId(id).append(...(found.count
    ? [reasons(found.reasons), ...table(columns, found.shown), more(found)].filter(known) : [nothing("None.")]));
  fill("failed", failures, [
    ["Job", (one) => text(one.job)], ["Key", (one) => data(one.key, "span", "mono")],
    ["Prompt", (one) => data(one.prompt)], ["Reason", (one) => text(one.reason)],
    ["Shard", (one) => one.shard, "fixed"],
  ]);
  fill("rejected", rejects, [
    ["Job", (one) => text(one.job)], ["File", (one) => data(one.file)],
    ["Line", (one) => one.line, "number"], ["Reason", (one) => data(one.reason)],
  ]);
}

function makeFacts({ run, settings, versions, model }) {
  const written = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const told = (values) => Object.fromEntries(Object.entries(values ?? {}).filter(([, value]) => known(value)));
  const details = (title, values, open = false) => (Object.keys(values).length ? el("details", { open },
    el("summary", {}, title), el("dl", { class: "facts" }, ...Object.entries(values).flatMap(([name, value]) =>
      [data(name, "dt"), data(written(value), "dd")]))) : null);
  byId("facts").append(...[
    details("Run", { name: run.name, directory: run.dir, id: run.id }, true),
    details("Model", told(model), true),
    details("Versions", told(versions), true),
    details(`Settings (${Object.keys(settings ?? {}).length})`, settings ?? {}),
    ...run.jobs.flatMap((job) => [details(`Settings of ${job.name}`, job.settings ?? {}), details(`Model of ${job.name}`, told(job.model))]),
  ].filter(known));
}

function makeSections() {
  for (const section of document.querySelectorAll("main > section:not([hidden])")) {
    byId("sections").append(el("a", { href: `#${section.id}` }, section.querySelector("h2").textContent));
  }
}

function makeTheme(redraw) {
  const theme = document.documentElement.dataset.theme ?? "";
  for (const input of byId("theme").querySelectorAll("input")) {
    input.checked = input.value === theme;
    input.addEventListener("change", () => {
      if (input.value) document.documentElement.dataset.theme = input.value;
      else delete document.documentElement.dataset.theme;
      try { localStorage.setItem("batchgen-theme", input.value); } catch { /* the browser keeps nothing for files */ }
      redraw();
    });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

function makePage(report) {
  makeHead(report);
  makeTotals(report);
  makeJobs(report.run.jobs);
  makeWorkers(report);
  makeTime(report);
  makeEvents(report);
  makeFailures(report);
  makeFacts(report);
  makeSections();
  makeTheme(makeCharts(report));
  makeSheet(report.samples);
}

makePage(JSON.parse(byId("report").textContent));
