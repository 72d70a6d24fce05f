// The sites on the left and, of one of them, the windows of a pipeline as charts.

import { ask } from "./ask.js";
import { Chart, capital } from "./chart.js";
import { make, table } from "./make.js";
import { ago, clock, moment, words, write } from "./write.js";

// Lines of one chart: more cannot be told apart.
const LINES = 8;
const HOURS = [1, 3, 6, 12, 24, 72, 168];
const FIRST = "site_capacity";

// What is looked at. It stands in the address, so that it can be kept and sent on.
const state = { site: null, pipeline: null, hours: 3, entity: "" };
let known = { sites: [], pipelines: [] };
let charts = new Map();
let changed = () => {};

export function start(whenChanged) {
  changed = whenChanged;
  readAddress();
  window.addEventListener("hashchange", () => {
    readAddress();
    changed();
  });
}

function readAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const hours = Number(asked.get("hours"));
  Object.assign(state, {
    site: asked.get("site"), pipeline: asked.get("pipeline"), entity: asked.get("entity") ?? "",
    hours: HOURS.includes(hours) ? hours : 3,
  });
}

function look(change) {
  const next = { ...state, ...change };
  const address = new URLSearchParams({ site: next.site ?? "", pipeline: next.pipeline ?? "", hours: next.hours });
  if (next.entity) address.set("entity", next.entity);
  location.hash = address.toString();
}

// Asks the lake and shows what it says; what it refuses is shown in place of the charts.
export async function refresh() {
  try {
    known = await ask("/api/sites", { hours: state.hours });
    if (!state.site && known.sites.length) state.site = known.sites[0].site;
    const there = known.sites.find((one) => one.site === state.site);
    listSites();
    if (!there) {
      showNone();
      return;
    }
    if (!there.pipelines[state.pipeline]) {
      const names = known.pipelines.map((one) => one.name).filter((name) => there.pipelines[name]);
      state.pipeline = names.includes(FIRST) ? FIRST : names[0];
    }
    const asked = { site: state.site, pipeline: state.pipeline, hours: state.hours };
    const answer = await ask("/api/windows", asked);
    // Meanwhile something else may have been chosen.
    if (asked.site === state.site && asked.pipeline === state.pipeline && asked.hours === state.hours) showSite(there, answer);
  } catch (error) {
    showTrouble(error);
  }
}

function listSites() {
  const now = Date.now();
  const names = [...new Set(known.sites.map((one) => one.site))];
  const list = document.getElementById("site-list");
  const focused = document.activeElement?.dataset?.site;
  list.replaceChildren(...names.map((name) => {
    const of = known.sites.filter((one) => one.site === name);
    const newest = Math.max(...of.map((one) => one.newest));
    const isRestated = of.some((one) => Object.values(one.pipelines).some((pipeline) => pipeline.is_restated));
    const button = make("button", {
      type: "button", "data-site": name, "aria-current": name === state.site ? "true" : null,
      onclick: () => look({ site: name, entity: "" }),
    }, make("strong", null, name), make("small", null, `${of.map((one) => one.region).join(", ")} · ${ago(newest, now)}`),
    isRestated ? make("small", { class: "again-note" }, "◯ windows computed again") : null);
    return make("li", null, button);
  }));
  if (focused) [...list.querySelectorAll("button")].find((button) => button.dataset.site === focused)?.focus();
  document.getElementById("sites-note").textContent = known.sites.length
    ? `${names.length} with windows in the last ${hours(state.hours)}${known.is_cut ? "; there are more, which are not listed" : ""}`
    : "";
}

function hours(count) {
  return count === 1 ? "hour" : count < 72 ? `${count} hours` : `${count / 24} days`;
}

// What stands above the charts. Who had the focus there has it again.
function head(...content) {
  const kept = document.activeElement?.dataset?.keep;
  id("site-head").replaceChildren(...content.filter((part) => part !== null));
  if (kept) [...id("site-head").querySelectorAll("[data-keep]")].find((element) => element.dataset.keep === kept)?.focus({ preventScroll: true });
}

function noCharts() {
  charts = new Map();
  id("charts").replaceChildren();
  id("charts-empty").hidden = true;
  id("newest").hidden = true;
}

function showNone() {
  noCharts();
  const told = known.sites.length
    ? `${state.site} has no windows in the last ${hours(state.hours)}.`
    : `No site has windows in the last ${hours(state.hours)} yet. A window closes some seconds after its end, and is in the lake after the next commit.`;
  head(make("p", { class: "note" }, told), choices(null));
}

// A process without a lake says where to look; any other trouble leaves the charts of the last answer standing.
function showTrouble(error) {
  if (error.status === 404) {
    noCharts();
    id("sites-note").textContent = "";
    id("site-list").replaceChildren();
    head(make("p", { class: "note" }, `${capital(error.message)}.`));
    return;
  }
  id("site-head").querySelector(".trouble")?.remove();
  id("site-head").prepend(make("p", { class: "trouble", role: "alert" }, error.message));
}

function choices(site) {
  const period = make("label", null, "last ", make("select", {
    "aria-label": "hours shown", "data-keep": "hours", onchange: (event) => look({ hours: Number(event.target.value) }),
  }, HOURS.map((count) => make("option", { value: count, selected: count === state.hours }, hours(count)))));
  const pipelines = site ? known.pipelines.filter((one) => site.pipelines[one.name]) : [];
  return make("div", { class: "choices" }, make("div", { class: "tabs", role: "group", "aria-label": "pipelines" }, pipelines.map((one) => make("button", {
    type: "button", "data-pipeline": one.name, "data-keep": `pipeline ${one.name}`, "aria-pressed": one.name === state.pipeline ? "true" : "false", title: one.about,
    onclick: () => look({ pipeline: one.name, entity: "" }),
  }, words(one.name, ""), site.pipelines[one.name].is_restated ? make("span", { class: "again-note", title: "has windows computed again" }, " ◯") : null))), period);
}

// The name of an entity: the values of its keys, without those that all entities share.
function labels(series, keys) {
  const told = keys.map((_, at) => new Set(series.map((one) => one.entity[at])).size > 1);
  return series.map((one) => {
    const parts = one.entity.filter((value, at) => value !== null && (told[at] || series.length === 1));
    return parts.join(" ") || one.entity.filter((value) => value !== null).join(" ");
  });
}

function showSite(site, windows) {
  const about = known.pipelines.find((one) => one.name === windows.pipeline);
  const names = labels(windows.series, windows.keys);
  const all = windows.series.map((series, at) => ({ series, label: names[at] }));
  const chosen = all.filter((one) => one.label === state.entity);
  const shown = (chosen.length ? chosen : all).slice(0, LINES).map((one, colour) => ({ ...one, colour }));
  const starts = shown.flatMap((one) => one.series.start[0] ?? []);
  const from = Math.max(windows.from, Math.min(...starts, windows.to - 60_000));
  const again = new Set(shown.flatMap(({ series }) => series.start.filter((_, at) => series.revision[at] > 0))).size;
  head(
    make("h2", { id: "site-name" }, site.site, make("small", null, ` ${site.region}`)),
    choices(site),
    make("p", { class: "note" }, `${about?.about ?? ""}. A window each ${write(windows.width_seconds, "seconds")}, from ${moment(from)}.`,
      windows.is_cut ? " There are too many windows for one look: older ones are left off; choose fewer hours, or use airan query." : ""),
    make("p", { class: "legend" },
      make("span", { class: "key-gap" }, "no windows"),
      make("span", { class: "key-again", "data-again": again }, `computed again because rows came late: ${again || "none"}`)),
    entities(all, shown, chosen.length > 0),
  );
  const old = charts;
  charts = new Map();
  const empty = [];
  windows.columns.forEach((column, index) => {
    const name = `${windows.pipeline} ${column.name}`;
    const chart = old.get(name) ?? new Chart();
    chart.update(windows, column, index, shown, from);
    if (chart.isEmpty) empty.push(column.name);
    else charts.set(name, chart);
  });
  keep(id("charts"), [...charts.values()].map((chart) => chart.element));
  id("charts-empty").hidden = empty.length === 0;
  id("charts-empty").textContent = `Without a value: ${empty.join(", ")}`;
  id("newest").hidden = shown.length === 0;
  id("newest").lastElementChild.replaceChildren(newest(windows, shown));
}

// Puts the elements into the grid, and leaves those that are there already where they are: a chart with the focus keeps it.
function keep(grid, elements) {
  [...grid.children].filter((child) => !elements.includes(child)).forEach((child) => child.remove());
  elements.forEach((element, at) => grid.children[at] !== element && grid.insertBefore(element, grid.children[at] ?? null));
}

function entities(all, shown, isChosen) {
  if (all.length < 2) return make("p", { class: "keys" }, make("span", { class: "key c0" }, all[0]?.label || state.site));
  const keys = shown.map((one) => make("span", { class: `key c${one.colour}` }, one.label || "–"));
  const select = make("select", { "aria-label": "entity shown", "data-keep": "entity", onchange: (event) => look({ entity: event.target.value }) },
    make("option", { value: "", selected: !isChosen }, all.length > LINES ? `the first ${LINES} of ${all.length}` : `all ${all.length}`),
    all.map((one) => make("option", { value: one.label, selected: isChosen && one.label === state.entity }, one.label)));
  return make("p", { class: "keys" }, make("label", null, "show ", select), keys);
}

// The newest window of each entity as a table: the same numbers without a picture.
function newest(windows, shown) {
  const columns = windows.columns.map((column, at) => ({ column, at }))
    .filter(({ at }) => shown.some(({ series }) => series.values[at].some((value) => value !== null)));
  const rows = shown.map(({ label, series }) => {
    const last = series.start.length - 1;
    const end = series.start[last] + windows.width_seconds * 1000;
    return [
      label || state.site,
      make("span", { "data-start": series.start[last] }, `${moment(series.start[last])} – ${clock(end, true)}`),
      series.revision[last] > 0 ? `computed again (revision ${series.revision[last]})` : "as it closed",
      write(series.completeness[last], "ratio"),
      ...columns.map(({ column, at }) => {
        const value = series.values[at][last];
        return make("span", { "data-column": column.name, "data-value": value ?? "" }, write(value, column.unit));
      }),
    ];
  });
  return table(["of", "window", "state", "completeness", ...columns.map(({ column }) => column.name)], rows);
}

function id(name) {
  return document.getElementById(name);
}
