// Arithmetic of a chart: where a line breaks, what its axes say. Nothing here touches the page.

// The windows of one entity that have a value in a column.
export function pointsOf(series, column, width) {
  const points = [];
  const values = series.values[column];
  series.start.forEach((start, at) => {
    if (values[at] === null) return;
    points.push({ start, at: start + width / 2, value: values[at], revision: series.revision[at], completeness: series.completeness[at] });
  });
  return points;
}

// The usual distance of windows that have values: their median, at least a window. Sources report less often than windows of 10 s
// pass, so not every window of theirs has a value.
export function usualStep(points, width) {
  const steps = points.slice(1).map((point, at) => point.start - points[at].start).sort((a, b) => a - b);
  return Math.max(width, steps.length ? steps[Math.floor((steps.length - 1) / 2)] : width);
}

// Runs of points without a gap between them: a gap is more than one and a half usual steps.
export function runsOf(points, step) {
  const runs = [];
  points.forEach((point, at) => {
    if (at === 0 || point.start - points[at - 1].start > 1.5 * step) runs.push([]);
    runs.at(-1).push(point);
  });
  return runs;
}

// Stretches of time in which none of the entities has a value: between their runs, and from the last of them to `to`, where that
// is longer than the path to the lake explains.
export function gapsOf(all, width, to) {
  const covered = all.flatMap(({ runs }) => runs.map((run) => [run[0].start, run.at(-1).start + width]))
    .sort((a, b) => a[0] - b[0]);
  const gaps = [];
  let end = null;
  for (const [from, until] of covered) {
    if (end !== null && from > end) gaps.push({ from: end, to: from });
    end = end === null ? until : Math.max(end, until);
  }
  const step = Math.max(width, ...all.map(({ step }) => step));
  if (end !== null && to - end > Math.max(3 * step, 180_000)) gaps.push({ from: end, to });
  return gaps;
}

// Marks of an axis: at most `most` round numbers that reach from below `low` to above `high`.
export function ticks(low, high, most) {
  const span = high - low || Math.abs(high) || 1;
  const rough = span / Math.max(1, most - 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough * 0.999);
  const first = Math.floor(low / step + 1e-9) * step;
  const marks = [];
  for (let at = 0; at <= 2 * most + 2; at += 1) {
    const mark = first + at * step;
    marks.push(Math.abs(mark) < step * 1e-9 ? 0 : mark);
    if (mark >= high - step * 1e-6) break;
  }
  return marks;
}

// The same of an axis of bytes, whose round numbers are powers of 1024.
export function byteTicks(low, high, most) {
  const power = Math.max(0, Math.floor(Math.log(Math.max(Math.abs(low), Math.abs(high), 1)) / Math.log(1024)));
  const unit = 1024 ** power;
  return ticks(low / unit, high / unit, most).map((mark) => mark * unit);
}

const SPANS = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880].map((minutes) => minutes * 60_000);

// Marks of the time axis, at round times of UTC: at most `most` steps.
export function timeTicks(from, to, most) {
  const step = SPANS.find((span) => (to - from) / span <= most) ?? SPANS.at(-1);
  const marks = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) marks.push(at);
  return { marks, step };
}
