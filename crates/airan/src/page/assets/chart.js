// A small chart of one column: a line for each entity, gaps left open and hatched, windows that were computed again ringed.

import { draw, make } from "./make.js";
import { byteTicks, gapsOf, pointsOf, runsOf, ticks, timeTicks, usualStep } from "./series.js";
import { UNITS, clock, day, moment, words, write } from "./write.js";

const HEIGHT = 150;
const LEFT = 62;
const RIGHT = 10;
const TOP = 10;
const BOTTOM = 22;

let numbered = 0;

export class Chart {
  constructor() {
    numbered += 1;
    this.hatch = `hatch-${numbered}`;
    this.title = make("span", { class: "chart-title" });
    this.unit = make("span", { class: "chart-unit" });
    this.name = make("code", { class: "chart-name" });
    this.newest = make("p", { class: "newest" });
    this.readout = make("p", { class: "readout", role: "status" });
    this.svg = draw("svg", { class: "plot", tabindex: 0, role: "img" });
    this.element = make("figure", { class: "chart" },
      make("figcaption", null, this.title, this.unit, this.name), this.newest, this.svg, this.readout);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.look(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
    this.svg.addEventListener("blur", () => this.look(null));
    new ResizeObserver(() => this.paint()).observe(this.element);
  }

  // `shown` are the entities with their colours: [{label, colour, series}].
  update(windows, column, index, shown, from) {
    const width = windows.width_seconds * 1000;
    this.model = { column, width, from, to: windows.to };
    this.lines = shown.map(({ label, colour, series }) => {
      const points = pointsOf(series, index, width);
      const step = usualStep(points, width);
      return { label, colour, points, step, runs: runsOf(points, step) };
    }).filter((line) => line.points.length);
    this.gaps = gapsOf(this.lines, width, windows.to);
    this.starts = [...new Set(this.lines.flatMap((line) => line.points.map((point) => point.start)))].sort((a, b) => a - b);
    const restated = this.lines.flatMap((line) => line.points.filter((point) => point.revision > 0));
    this.restated = new Set(restated.map((point) => point.start)).size;
    this.element.dataset.column = column.name;
    this.title.textContent = column.help || capital(words(column.name, column.unit));
    this.unit.textContent = `${UNITS[column.unit] ?? column.unit}${column.is_added ? ", in each window" : ""}`;
    this.name.textContent = column.name;
    this.tell();
    this.paint();
  }

  get isEmpty() {
    return this.lines.length === 0;
  }

  // The newest value of a single line; what stands out, for those who do not see the picture.
  tell() {
    const { column } = this.model;
    const newest = this.lines.map((line) => `${line.label ? `${line.label}: ` : ""}${write(line.points.at(-1)?.value, column.unit)}`);
    this.newest.textContent = this.lines.length === 1 ? write(this.lines[0].points.at(-1).value, column.unit) : "";
    this.newest.hidden = this.lines.length !== 1;
    const holes = this.lines.reduce((sum, line) => sum + line.runs.length - 1, 0);
    this.svg.setAttribute("aria-label", [
      `${this.title.textContent}, ${this.unit.textContent}`,
      `newest ${newest.slice(0, 8).join(", ")}`,
      `${this.starts.length} windows from ${moment(this.starts[0] ?? 0)}`,
      holes ? `${holes} gaps` : "no gap",
      this.restated ? `${this.restated} windows computed again` : "none computed again",
      "arrow keys step through the windows",
    ].join("; "));
  }

  paint() {
    if (!this.model || this.isEmpty) return;
    const wide = Math.max(160, Math.floor(this.svg.clientWidth || this.svg.getBoundingClientRect().width));
    this.svg.setAttribute("viewBox", `0 0 ${wide} ${HEIGHT}`);
    const { from, to, column, width } = this.model;
    this.x = (at) => LEFT + ((at - from) / (to - from)) * (wide - LEFT - RIGHT);
    this.back = (x) => from + ((x - LEFT) / (wide - LEFT - RIGHT)) * (to - from);
    const values = this.lines.flatMap((line) => line.points.map((point) => point.value));
    const low = Math.min(0, ...values);
    const high = Math.max(...values, low === 0 ? 0 : low);
    const marks = (column.unit.startsWith("bytes") ? byteTicks : ticks)(low, high === low ? low + 1 : high, 4);
    const [bottom, top] = [marks[0], marks.at(-1)];
    this.y = (value) => HEIGHT - BOTTOM - ((value - bottom) / (top - bottom)) * (HEIGHT - TOP - BOTTOM);
    this.cursor = draw("g", { class: "cursor" });
    this.svg.replaceChildren(
      draw("defs", null, draw("pattern", { id: this.hatch, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
        draw("rect", { class: "hatch-ground", width: 6, height: 6 }), draw("line", { class: "hatch-line", x1: 0, y1: 0, x2: 0, y2: 6 }))),
      ...this.gaps.map((gap) => this.gap(gap)),
      ...marks.map((mark) => this.mark(mark, wide, column.unit)),
      ...this.timeAxis(wide),
      ...this.lines.map((line) => draw("path", {
        class: `line c${line.colour}`, d: line.runs.map((run) => this.run(run)).join(""), "data-label": line.label, "data-runs": line.runs.length,
      })),
      ...this.lines.flatMap((line) => line.runs.filter((run) => run.length === 1).map(([point]) => draw("circle", {
        class: `dot c${line.colour}`, cx: this.x(point.at).toFixed(1), cy: this.y(point.value).toFixed(1), r: 2.4,
      }))),
      ...this.lines.flatMap((line) => line.points.filter((point) => point.revision > 0).map((point) => draw("circle", {
        class: `again c${line.colour}`, cx: this.x(point.at).toFixed(1), cy: this.y(point.value).toFixed(1), r: 3.2,
        "data-start": point.start, "data-revision": point.revision,
      }))),
      this.cursor,
    );
    if (this.at !== undefined && this.at !== null) this.look(this.at);
  }

  run(run) {
    const [first, ...rest] = run.map((point) => `${this.x(point.at).toFixed(1)} ${this.y(point.value).toFixed(1)}`);
    return `M${first}${rest.map((point) => `L${point}`).join("")}`;
  }

  gap({ from, to }) {
    const left = Math.max(LEFT, this.x(from));
    return draw("rect", {
      class: "gap", x: left.toFixed(1), y: TOP, width: Math.max(1, this.x(to) - left).toFixed(1), height: HEIGHT - TOP - BOTTOM,
      fill: `url(#${this.hatch})`, "data-from": from, "data-to": to,
    }, draw("title", null, `no values from ${moment(from)} to ${moment(to)}`));
  }

  mark(value, wide, unit) {
    const y = this.y(value).toFixed(1);
    return draw("g", { class: "mark" }, draw("line", { x1: LEFT, x2: wide - RIGHT, y1: y, y2: y }),
      draw("text", { x: LEFT - 6, y, "text-anchor": "end", "dominant-baseline": "middle" }, write(value, unit)));
  }

  timeAxis(wide) {
    const { from, to } = this.model;
    const { marks, step } = timeTicks(from, to, Math.max(2, Math.floor((wide - LEFT) / 64)));
    return marks.map((at) => {
      const x = this.x(at).toFixed(1);
      const isDay = step >= 86_400_000 || at % 86_400_000 === 0;
      const anchor = this.x(at) > wide - 30 ? "end" : this.x(at) < LEFT + 12 ? "start" : "middle";
      return draw("g", { class: "mark time" }, draw("line", { x1: x, x2: x, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM + 4 }),
        draw("text", { x, y: HEIGHT - 6, "text-anchor": anchor }, isDay ? day(at).slice(5) : clock(at)));
    });
  }

  point(event) {
    const box = this.svg.getBoundingClientRect();
    if (!this.back || box.width === 0) return;
    this.look(this.nearest(this.back(((event.clientX - box.left) / box.width) * this.svg.viewBox.baseVal.width) - this.model.width / 2));
  }

  nearest(at) {
    let best = 0;
    this.starts.forEach((start, index) => {
      if (Math.abs(start - at) < Math.abs(this.starts[best] - at)) best = index;
    });
    return best;
  }

  key(event) {
    const last = this.starts.length - 1;
    const at = this.at ?? last + 1;
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, PageUp: at - 10, PageDown: at + 10, Home: 0, End: last }[event.key];
    if (event.key === "Escape") this.look(null);
    if (to === undefined || last < 0) return;
    event.preventDefault();
    this.look(Math.max(0, Math.min(last, to)));
  }

  // Puts the cursor on a window, by its place among the starts; null takes it away.
  look(at) {
    this.at = at;
    if (!this.cursor) return;
    if (at === null || at >= this.starts.length) {
      this.cursor.replaceChildren();
      this.readout.textContent = "";
      return;
    }
    const start = this.starts[at];
    const { width, column } = this.model;
    const x = this.x(start + width / 2).toFixed(1);
    const here = this.lines.flatMap((line) => line.points.filter((point) => point.start === start).map((point) => ({ line, point })));
    this.cursor.replaceChildren(draw("line", { x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }),
      ...here.map(({ line, point }) => draw("circle", { class: `here c${line.colour}`, cx: x, cy: this.y(point.value).toFixed(1), r: 3 })));
    const told = here.map(({ line, point }) => [
      `${line.label && this.lines.length > 1 ? `${line.label} ` : ""}${write(point.value, column.unit)}`,
      point.revision > 0 ? ` (computed again, revision ${point.revision})` : "",
      point.completeness !== null && point.completeness < 1 ? ` (${write(point.completeness, "ratio")} of its rows)` : "",
    ].join(""));
    this.readout.textContent = `${moment(start)} – ${clock(start + width, true)}: ${told.join(" · ")}`;
  }
}

export function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
