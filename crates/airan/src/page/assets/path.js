// The picture of the path, the sums, the watermarks and the refusals, from /api/overview.

import { make, table } from "./make.js";
import { count, many, rate, write } from "./write.js";

// Readings from which rates are made: ten seconds of them.
const KEPT = 6;

const readings = [];

// The rise of a total a second over the kept readings; null before there are two, or where it fell.
function rise(of) {
  const [first, last] = [readings[0], readings.at(-1)];
  if (readings.length < 2 || last.at <= first.at) return null;
  const [from, to] = [of(first), of(last)];
  return from === null || to === null || to < from ? null : ((to - from) * 1000) / (last.at - first.at);
}

const sum = (parts) => Object.values(parts).reduce((all, one) => all + one, 0);

// What each part of the path shows: its total whose rate is the headline, and its facts: [name, value, text, is it bad].
const PARTS = [
  {
    key: "agent", title: "Agent", does: "collects and scrapes", unit: "rows/s", total: (part) => part.collected,
    facts: (part) => [
      ["collected", part.collected, count(part.collected)],
      ["queued", part.queued, count(part.queued)],
      ["dropped", sum(part.dropped), named(part.dropped), sum(part.dropped) > 0],
      ["targets up", sum(part.targets), targets(part.targets), sum(part.targets) < Object.keys(part.targets).length],
      ["uplink", part.uplink_up, part.uplink_up === null ? "not used" : part.uplink_up ? "up" : "down", part.uplink_up === 0],
    ],
  },
  {
    key: "gateway", title: "Gateway", does: "doors, admission", unit: "rows/s", total: (part) => part.received,
    facts: (part) => [
      ["received", part.received, count(part.received)],
      ["acknowledged", part.acknowledged, count(part.acknowledged)],
      ["refused", part.refused, count(part.refused), part.refused > 0],
      ["unknown", part.unknown, count(part.unknown), part.unknown > 0],
      ["under way", part.in_flight_requests, many(part.in_flight_requests, "request")],
      ["nodes without a site", part.unassigned_nodes, count(part.unassigned_nodes), part.unassigned_nodes > 0],
      ["wrong clocks", part.implausible_rows, many(part.implausible_rows, "row"), part.implausible_rows > 0],
    ],
  },
  {
    key: "bus", title: "Bus", does: "log or Kafka", unit: "messages/s", total: (part) => part.messages.acknowledged ?? 0,
    facts: (part) => {
      const failed = sum(part.messages) - (part.messages.acknowledged ?? 0);
      return [
        ["acknowledged", part.messages.acknowledged ?? 0, count(part.messages.acknowledged ?? 0)],
        ["not acknowledged", failed, count(failed), failed > 0],
        ["waiting", part.waiting, count(part.waiting)],
        ["given to the processor", part.received, count(part.received)],
        ["stored", part.stored_bytes, part.stored_bytes > 0 ? write(part.stored_bytes, "bytes") : "elsewhere"],
      ];
    },
  },
  {
    key: "processor", title: "Processor", does: "windows", unit: "rows/s", total: (part) => part.appended,
    facts: (part) => [
      ["lag", part.lag_offsets, `${many(part.lag_offsets, "message")}, ${write(part.lag_seconds, "seconds")}`, part.lag_seconds > 60],
      ["watermark delay", worst(part), write(worst(part), "seconds"), worst(part) > 600],
      ["shards up", part.shards_up, `${count(part.shards_up)} of ${count(part.shards)}`, part.shards_up < part.shards],
      ["duplicates", part.duplicate, count(part.duplicate)],
      ["late rows", sum(part.late), named(part.late)],
      ["computed again", part.restated_windows, `${many(part.restated_windows, "window")}, ${count(part.dirty_windows)} to do`],
      ["pipelines stopped", part.stopped.length, part.stopped.join(", ") || "none", part.stopped.length > 0],
    ],
  },
  {
    key: "lake", title: "Lake", does: "Parquet, Delta", unit: "rows/s", total: (part) => part.rows,
    facts: (part) => [
      ["rows written", part.rows, count(part.rows)],
      ["commits", part.commits, count(part.commits)],
      ["failed commits", part.commit_failures, count(part.commit_failures), part.commit_failures > 0],
      ["bytes written", part.bytes, write(part.bytes, "bytes")],
      ["Delta behind", part.publish_lag_seconds, write(part.publish_lag_seconds, "seconds"), part.publish_lag_seconds > 300],
      ["tables", Object.keys(part.tables).length, tables(part.tables)],
    ],
  },
];

function worst(part) {
  const delays = Object.values(part.watermark_delay);
  return delays.length ? Math.max(...delays) : null;
}

function named(parts) {
  const there = Object.entries(parts).filter(([, value]) => value > 0);
  return there.length ? there.map(([name, value]) => `${count(value)} ${name.replaceAll("_", " ")}`).join(", ") : "0";
}

function targets(up) {
  const all = Object.keys(up).length;
  return all ? `${count(sum(up))} of ${count(all)}` : "none set";
}

function tables(all) {
  const known = Object.values(all);
  if (!known.length) return "–";
  return `${count(known.length)}, in ${many(known.reduce((n, one) => n + one.files, 0), "file")}`;
}

export function showOverview(overview) {
  const before = readings.at(-1);
  // Another process: its totals began anew.
  if (before && (before.about.node !== overview.about.node || before.gateway?.received > overview.gateway?.received)) readings.length = 0;
  readings.push(overview);
  if (readings.length > KEPT) readings.shift();

  document.title = `airan ${overview.about.node}`;
  id("who").textContent = `${overview.about.node} · ${overview.about.roles.join(", ")} · version ${overview.version}`;
  const isReady = overview.troubles.length === 0;
  const state = id("state");
  const told = isReady ? "ready" : overview.troubles.join(" · ");
  if (state.textContent !== told) state.textContent = told;
  state.className = isReady ? "good" : "bad";

  id("path").replaceChildren(...PARTS.map((part) => box(part, overview)));
  showSums(overview.sums);
  id("delay").replaceChildren(delays(overview.processor));
  id("refused").replaceChildren(refusals(overview));
}

function box(part, overview) {
  const here = overview[part.key];
  const ofBus = overview.about.bus === "kafka" ? "Kafka" : "log on this disk";
  const does = part.key === "bus" && here ? ofBus : part.does;
  const head = [make("h3", null, part.title), make("p", { class: "does" }, does)];
  if (!here) {
    const waits = overview.about.roles.includes("processor") || part.key !== "lake";
    const told = overview.troubles[0]?.startsWith("starting") && waits ? "starting" : "not in this process";
    return make("li", { class: "part absent", "data-part": part.key }, head, make("p", { class: "note" }, told));
  }
  const value = rise((reading) => (reading[part.key] ? part.total(reading[part.key]) : null));
  const facts = part.facts(here).map(([name, number, text, isBad]) => make("div", { class: isBad ? "fact bad" : "fact" },
    make("dt", null, name), make("dd", { "data-fact": name, "data-value": number ?? "" }, text, isBad ? make("span", { class: "sign" }, " ⚠") : null)));
  return make("li", { class: "part", "data-part": part.key }, head,
    make("p", { class: "headline", "data-rate": value ?? "" }, make("strong", null, rate(value)), ` ${part.unit}`), make("dl", null, facts));
}

// The sums, one line each; partitions as one, with each of them below.
function showSums(all) {
  const shards = all.filter((one) => one.of.startsWith("partition "));
  const others = all.filter((one) => !one.of.startsWith("partition "));
  const together = shards.length > 1 ? [{
    of: `${shards.length} partitions`,
    total: { name: shards[0].total.name, rows: shards.reduce((n, one) => n + one.total.rows, 0) },
    parts: shards[0].parts.map((part, at) => ({ name: part.name, rows: shards.reduce((n, one) => n + one.parts[at].rows, 0) })),
    open: shards.reduce((n, one) => n + one.open, 0),
  }] : shards;
  id("sums").replaceChildren(all.length ? sumTable([...others, ...together], "sums") : make("p", { class: "note" }, "No rows yet."));
  id("sums-each").hidden = shards.length < 2;
  id("sums-each").lastElementChild.replaceChildren(sumTable(shards, "sums each"));
}

function sumTable(all, name) {
  return table(["of", "total", "=", "parts", "open"], all.map((one) => [
    one.of, number(one.total), "=",
    make("span", null, one.parts.map((part, at) => [at ? " + " : "", number(part)])),
    make("span", { class: one.open === 0 ? "good" : "open", "data-open": one.open }, one.open === 0 ? "0 ✓" : count(one.open)),
  ]), { class: name });
}

function number(part) {
  return make("span", { class: "summand", "data-of": part.name, "data-rows": part.rows }, `${count(part.rows)} `, make("small", null, part.name));
}

function delays(processor) {
  const all = Object.entries(processor?.watermark_delay ?? {}).sort((a, b) => b[1] - a[1]);
  if (!all.length) return make("p", { class: "note" }, processor ? "No stream has rows yet." : "No processor in this process.");
  const most = Math.max(...all.map(([, value]) => value), 1);
  return make("ul", { class: "bars" }, all.map(([stream, value]) => make("li", { "data-stream": stream, "data-value": value },
    make("span", null, stream), make("meter", { min: 0, max: most, value, "aria-label": `watermark delay of ${stream}` }), make("span", { class: "value" }, write(value, "seconds")))));
}

function refusals(overview) {
  const all = [...(overview.gateway?.rejected ?? []), ...(overview.processor?.rejected_messages ?? [])];
  if (!overview.gateway && !overview.processor) return make("p", { class: "note" }, "Nothing is refused in this process.");
  if (!all.length) return make("p", { class: "note good" }, "Nothing was refused since this process started.");
  return table(["by", "reason", "count"], all.map((one) => [one.by.replaceAll("_", " "), one.reason.replaceAll("_", " "), make("span", { "data-rejected": one.reason, "data-value": one.count }, count(one.count))]));
}

function id(name) {
  return document.getElementById(name);
}
