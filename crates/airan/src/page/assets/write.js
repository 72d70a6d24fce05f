// Numbers and times as people read them. Units are the lake's base units; scaling is only for the eye.

const LARGE = ["", "k", "M", "G", "T", "P"];
const BINARY = ["", "Ki", "Mi", "Gi", "Ti", "Pi"];

// Three significant digits, without an exponent.
export function digits(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  if (size < 1e-6) return value.toExponential(2);
  const places = Math.max(0, 2 - Math.floor(Math.log10(size)));
  return String(Number(value.toFixed(Math.min(places, 12))));
}

function scaled(value, step, names, unit) {
  let at = 0;
  while (Math.abs(value) >= step && at < names.length - 1) {
    value /= step;
    at += 1;
  }
  return `${digits(value)} ${names[at]}${unit}`;
}

function small(value, unit) {
  const size = Math.abs(value);
  if (size === 0 || size >= 1) return scaled(value, 1000, LARGE, unit);
  for (const [factor, name] of [[1e3, "m"], [1e6, "µ"], [1e9, "n"]]) {
    if (size * factor >= 1 || name === "n") return `${digits(value * factor)} ${name}${unit}`;
  }
}

function seconds(value) {
  const size = Math.abs(value);
  if (size < 60) return small(value, "s");
  if (size < 2 * 3600) return `${digits(value / 60)} min`;
  if (size < 2 * 86400) return `${digits(value / 3600)} h`;
  return `${digits(value / 86400)} d`;
}

const WRITERS = {
  ratio: (value) => `${digits(value * 100)} %`,
  seconds,
  bytes: (value) => scaled(value, 1024, BINARY, "B"),
  bytes_per_second: (value) => scaled(value, 1024, BINARY, "B/s"),
  joules: (value) => small(value, "J"),
  watts: (value) => small(value, "W"),
  celsius: (value) => `${digits(value)} °C`,
  hertz: (value) => scaled(value, 1000, LARGE, "Hz"),
  volts: (value) => small(value, "V"),
  per_second: (value) => `${digits(value)}/s`,
  count: (value) => count(value),
  none: (value) => digits(value),
};

// What the axis and the readout say of a unit, where the numbers do not say it themselves.
export const UNITS = {
  ratio: "percent", seconds: "seconds", bytes: "bytes", bytes_per_second: "bytes a second", joules: "joules", watts: "watts",
  celsius: "degrees Celsius", hertz: "hertz", volts: "volts", per_second: "a second", count: "count", none: "no unit",
};

// A value in its unit; what is absent is a dash.
export function write(value, unit) {
  if (value === null || value === undefined) return "–";
  return (WRITERS[unit] ?? WRITERS.none)(value);
}

// A whole number of things.
export function count(value) {
  if (Math.abs(value) >= 1e7) return scaled(value, 1000, LARGE, "").trimEnd();
  return Number.isInteger(value) ? value.toLocaleString("en") : digits(value);
}

export function many(value, what) {
  return `${count(value)} ${what}${value === 1 ? "" : "s"}`;
}

// A rate a second; null while it is not known.
export function rate(value) {
  return value === null ? "…" : digits(value);
}

const two = (value) => String(value).padStart(2, "0");

// Time of day in UTC, with seconds where they say something.
export function clock(at, withSeconds) {
  const time = new Date(at);
  const text = `${two(time.getUTCHours())}:${two(time.getUTCMinutes())}`;
  return withSeconds ? `${text}:${two(time.getUTCSeconds())}` : text;
}

export function day(at) {
  return new Date(at).toISOString().slice(0, 10);
}

export function moment(at) {
  return `${day(at)} ${clock(at, true)}`;
}

// How long ago, roughly.
export function ago(at, now) {
  const passed = Math.max(0, (now - at) / 1000);
  if (passed < 100) return `${Math.round(passed)} s ago`;
  if (passed < 100 * 60) return `${Math.round(passed / 60)} min ago`;
  if (passed < 48 * 3600) return `${Math.round(passed / 3600)} h ago`;
  return `${Math.round(passed / 86400)} d ago`;
}

// Words of a column's name: `headroom_ratio` without its unit.
export function words(name, unit) {
  const rest = name.endsWith(`_${unit}`) ? name.slice(0, -unit.length - 1) : name;
  return rest.replaceAll("_", " ");
}
