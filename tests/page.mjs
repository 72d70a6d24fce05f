// What the page shows, in a real browser: see page.sh, which starts airan and sets the environment.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const { AIRAN, WORK, UP, PLAYWRIGHT, PAGE, AGENT_PAGE, DOORS, PICTURES } = process.env;
const { chromium } = createRequire(import.meta.url)(PLAYWRIGHT);

const DEADLINE = 120_000;
const HOSTILE = "<img src=x onerror=\"document.title='owned'\">";
const SCRIPT = "<script>document.title='owned'</script>";
const WIDTH = 10_000;

function ok(what) {
  console.log(`ok   ${what}`);
}

// Calls `probe` until what it answers is true.
async function until(what, probe) {
  const end = Date.now() + DEADLINE;
  let last;
  for (;;) {
    try {
      const answer = await probe();
      if (answer) return answer;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error(`not within ${DEADLINE / 1000} s: ${what}${last ? `: ${last.message}` : ""}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

function query(sql) {
  const options = ["query", "--config", join(WORK, "up.yaml"), "--data", join(WORK, "data"), "--format", "json", sql];
  return JSON.parse(execFileSync(AIRAN, options, { encoding: "utf8" }));
}

async function push(rows, expected = 200) {
  const body = rows.map((row) => (typeof row === "string" ? row : JSON.stringify(row))).join("\n");
  const answer = await fetch(`${DOORS}/v1/ndjson`, { method: "POST", headers: { "content-type": "application/x-ndjson" }, body });
  assert.equal(answer.status, expected, await answer.text());
}

async function get(path, options) {
  return fetch(`${PAGE}${path}`, options);
}

// A module of the page, as node can load it: it imports nothing.
async function module(name) {
  const text = readFileSync(new URL(`../crates/airan/src/page/assets/${name}`, import.meta.url), "utf8");
  return import(`data:text/javascript,${encodeURIComponent(text)}`);
}

// ---- arithmetic of charts and the writing of numbers, without a browser

const { gapsOf, runsOf, ticks, timeTicks, usualStep } = await module("series.js");
const { ago, count, digits, write } = await module("write.js");
const at = (...starts) => starts.map((start) => ({ start, at: start, value: 1 }));
assert.equal(usualStep(at(0, 30, 60, 90, 300), 10), 30, "a source of 30 s has a window in three");
assert.deepEqual(runsOf(at(0, 30, 60, 120, 150), 30).map((run) => run.length), [3, 2]);
assert.deepEqual(runsOf(at(0, 30, 70), 30).length, 1, "a report that came late is no gap");
const line = (...starts) => ({ step: 10, runs: runsOf(at(...starts), 10) });
assert.deepEqual(gapsOf([line(0, 10, 50, 60)], 10, 70), [{ from: 20, to: 50 }]);
assert.deepEqual(gapsOf([line(0, 10, 50, 60), line(30)], 10, 70), [{ from: 20, to: 30 }, { from: 40, to: 50 }], "another entity fills part of it");
assert.deepEqual(gapsOf([line(0, 10)], 10, 400_000), [{ from: 20, to: 400_000 }], "silent until now");
assert.deepEqual(ticks(0, 0.93, 4), [0, 0.5, 1]);
assert.deepEqual(ticks(-2, 9, 4), [-5, 0, 5, 10]);
assert.deepEqual(timeTicks(0, 3_600_000, 3).marks, [0, 1_800_000, 3_600_000]);
for (const [value, unit, text] of [
  [0.12345, "ratio", "12.3 %"], [1, "ratio", "100 %"], [0, "ratio", "0 %"], [12.5e-9, "seconds", "12.5 ns"], [0.0042, "seconds", "4.2 ms"],
  [59.94, "seconds", "59.9 s"], [120, "seconds", "2 min"], [1024 ** 3 * 1.5, "bytes", "1.5 GiB"], [1e6, "bytes_per_second", "977 KiB/s"],
  [312, "watts", "312 W"], [4200, "watts", "4.2 kW"], [-3.2, "celsius", "-3.2 °C"], [1.5e9, "hertz", "1.5 GHz"], [7, "count", "7"],
  [null, "ratio", "–"], [1234567, "count", "1,234,567"], [0.1, "none", "0.1"],
]) {
  assert.equal(write(value, unit), text, `${value} ${unit}`);
}
assert.equal(`${count(12_345_678)} ${digits(1234.5)} ${ago(0, 90_000)}`, "12.3 M 1,235 90 s ago");
ok("arithmetic of charts, numbers as people read them");

// ---- what the server answers, and to whom

await until("airan is ready", async () => (await get("/readyz")).ok);
for (const path of ["/", "/page/main.js", "/page/page.css", "/api/overview", "/metrics"]) {
  const answer = await get(path);
  assert.equal(answer.status, 200, path);
  const policy = answer.headers.get("content-security-policy");
  assert.match(policy, /default-src 'none'.*script-src 'self'.*frame-ancestors 'none'/, path);
  assert.doesNotMatch(policy, /unsafe|\*|https?:/);
  for (const method of ["POST", "PUT", "DELETE", "PATCH"]) assert.equal((await get(path, { method })).status, 405, `${method} ${path}`);
}
const curl = (...options) => execFileSync("curl", ["-s", "-o", "/dev/null", "-w", "%{http_code}", ...options], { encoding: "utf8" });
for (const path of ["/", "/api/overview", "/metrics"]) {
  assert.equal(curl("-H", "Host: evil.example", `${PAGE}${path}`), "421", "a foreign name that leads here");
  assert.equal(curl("-H", `Host: localhost:${new URL(PAGE).port}`, `${PAGE}${path}`), "200");
}
for (const [path, status, told] of [
  ["/api/sites?hours=0", 400, "from 1 to 168"], ["/api/sites?hours=169", 400, "from 1 to 168"], ["/api/sites?sql=x", 400, "`sql`"],
  ["/api/windows?pipeline=host_load", 400, "`site`"], ["/api/windows?site=a&pipeline=none", 404, "no pipeline `none`"],
  ["/api/windows?site=a&pipeline=..%2Fhost", 404, "no pipeline"], ["/nothing", 404, ""],
]) {
  const answer = await get(path);
  assert.equal(answer.status, status, path);
  assert.ok((await answer.text()).includes(told), path);
}
const crowd = await Promise.all(Array.from({ length: 60 }, (_, n) => get(`/api/windows?site=a&pipeline=link_use&hours=${1 + n}`)));
const statuses = new Set(crowd.map((answer) => answer.status));
assert.ok(statuses.has(200) && [...statuses].every((status) => status === 200 || status === 429), [...statuses].join());
assert.ok(crowd.every((answer) => answer.status === 200 || answer.headers.get("retry-after") === "1"));
ok(`methods, host names, parameters; of 60 looks at once ${crowd.filter((answer) => answer.status === 429).length} were told to come again`);

// ---- rows: two sites, one with a gap; later a late row

const start = Math.floor(Date.now() / WIDTH) * WIDTH - 110_000;
const row = (node, device, ts, more) => ({ stream: "accelerator", node, device, ts: ts * 1000, ...more });
const rows = [];
for (let ts = start; ts <= start + 110_000; ts += 5_000) {
  const n = (ts - start) / 5_000;
  // No rows for the windows from 40 s to 70 s.
  if (ts < start + 40_000 || ts >= start + 70_000) rows.push(row("edge-a", "GPU-0", ts, { utilization: (n % 10) / 16, power_watts: 300 + n, temperature_celsius: 40 + n / 2 }));
  rows.push(row("edge-b", SCRIPT, ts, { utilization: 0.5, power_watts: 200 }));
}
await push([...rows, "{no json", { stream: "no_such_stream", node: "edge-a" }]);
const WINDOWS = "SELECT CAST(window_start AS BIGINT) / 1000 AS start, device, utilization_avg_ratio, power_watts, temperature_max_celsius, revision "
  + "FROM accelerator_capacity_latest WHERE site = 'north-001' ORDER BY window_start";
await until("windows of both sites are in the lake", () => query(WINDOWS).length >= 6
  && query(`SELECT count(*) AS n FROM accelerator_capacity WHERE site = '${HOSTILE.replaceAll("'", "''")}'`)[0].n >= 9);
const lateStart = start + 20_000;
const before = query(WINDOWS).find((window) => window.start === lateStart);
assert.equal(before.revision, 0);
await push([row("edge-a", "GPU-0", lateStart + 7_000, { utilization: 1, power_watts: 999 })]);
await until("the late row has restated its window", () => query(WINDOWS).find((window) => window.start === lateStart).revision === 1);
ok("two sites in the lake, one with a gap and a window computed again");

// ---- the page

const picture = async (page, name, options) => PICTURES && page.screenshot({ path: join(PICTURES, `${name}.png`), ...options });
if (PICTURES) mkdirSync(PICTURES, { recursive: true });
const context = await chromium.launchPersistentContext(join(WORK, "browser"), {
  executablePath: "/usr/bin/chromium", headless: true, viewport: { width: 1360, height: 1000 }, colorScheme: "light",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
});
try {
  const wrong = [];
  const asked = new Set();
  const page = context.pages()[0] ?? await context.newPage();
  context.on("request", (request) => asked.add(new URL(request.url()).origin));
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && wrong.push(message.text()));
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("dialog", (dialog) => {
    wrong.push(`dialog ${dialog.message()}`);
    dialog.dismiss();
  });
  await page.goto(PAGE);
  const text = (selector) => page.locator(selector).innerText();

  // The path, its rates, and the sums.
  await page.waitForFunction(() => Number(document.querySelector('[data-part="agent"] .headline')?.dataset.rate) > 0, null, { timeout: DEADLINE });
  assert.deepEqual(await page.locator(".part").evaluateAll((parts) => parts.map((part) => part.dataset.part)), ["agent", "gateway", "bus", "processor", "lake"]);
  assert.equal(await page.locator(".part.absent").count(), 0);
  assert.equal(await text("#state"), "ready");
  const fact = (part, name) => page.locator(`[data-part="${part}"] [data-fact="${name}"]`).getAttribute("data-value").then(Number);
  const metrics = await (await get("/metrics")).text();
  const metric = (name) => metrics.split("\n").filter((one) => one.startsWith(`${name} `) || one.startsWith(`${name}{`))
    .reduce((sum, one) => sum + Number(one.split(" ").at(-1)), 0);
  const refused = metric('airan_gateway_rejected_total');
  assert.ok(refused >= 1);
  await until("the refusals of /metrics are on the page", async () => {
    const shown = await page.locator("#refused [data-rejected]").evaluateAll((all) => all.reduce((sum, one) => sum + Number(one.dataset.value), 0));
    return shown === refused;
  });
  await until("the page counts with /metrics", async () => {
    const now = await (await get("/metrics")).text();
    const collected = now.split("\n").filter((one) => one.startsWith("airan_agent_collected_rows_total{")).reduce((sum, one) => sum + Number(one.split(" ").at(-1)), 0);
    return Math.abs(await fact("agent", "collected") - collected) < 40 && await fact("lake", "commits") > 5;
  });
  const sums = await page.locator("#sums .sums tbody tr, #sums-each tbody tr").evaluateAll((all) => all.map((one) => ({
    of: one.cells[0].textContent, numbers: [...one.querySelectorAll("[data-rows]")].map((part) => Number(part.dataset.rows)), open: Number(one.querySelector("[data-open]").dataset.open),
  })));
  for (const name of ["agent", "door ndjson", "door agent", "2 partitions", "partition 0", "partition 1"]) {
    const { numbers: [total, ...parts], open } = sums.find((sum) => sum.of === name);
    assert.equal(total, parts.reduce((sum, part) => sum + part, 0) + open, name);
  }
  assert.ok(sums.find((sum) => sum.of === "door ndjson").numbers[0] >= rows.length);
  await until("no row is unaccounted for", async () => (await page.locator("#sums [data-open]").evaluateAll((all) => all.map((one) => one.dataset.open))).every((open) => open === "0"));
  assert.ok(await page.locator('#delay [data-stream="accelerator"]').count() === 1);
  ok("the path, its rates, the refusals, the watermarks and the sums");

  // A site and a pipeline are chosen with the keyboard alone.
  const reach = async (what, is) => {
    for (let n = 0; n < 60; n += 1) {
      if (await page.evaluate(is)) return;
      await page.keyboard.press("Tab");
    }
    throw new Error(`Tab does not reach ${what}`);
  };
  await until("both sites are listed", async () => await page.locator("[data-site]").count() >= 2);
  await page.evaluate(() => document.activeElement.blur());
  await reach("the site", () => document.activeElement.dataset.site === "north-001");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector("#site-name")?.textContent.startsWith("north-001"));
  await page.locator('[data-pipeline="accelerator_capacity"]').waitFor();
  await reach("the pipeline", () => document.activeElement.dataset.pipeline === "accelerator_capacity");
  await page.keyboard.press("Space");
  await page.locator('[data-pipeline="accelerator_capacity"][aria-pressed="true"]').waitFor();
  assert.match(page.url(), /site=north-001.*pipeline=accelerator_capacity/);

  // The charts hold the lake's numbers.
  const windows = query(WINDOWS);
  const answer = await page.evaluate(async () => (await fetch("/api/windows?site=north-001&pipeline=accelerator_capacity&hours=3")).json());
  assert.equal(answer.series.length, 1);
  assert.deepEqual(answer.series[0].start, windows.map((window) => window.start));
  assert.deepEqual(answer.series[0].revision, windows.map((window) => window.revision));
  for (const name of ["utilization_avg_ratio", "power_watts", "temperature_max_celsius"]) {
    const at = answer.columns.findIndex((column) => column.name === name);
    assert.deepEqual(answer.series[0].values[at], windows.map((window) => window[name]), name);
  }
  const chart = page.locator('figure[data-column="utilization_avg_ratio"]');
  await chart.locator(".line").waitFor({ state: "attached" });
  assert.match(await chart.innerText(), /percent/);
  assert.equal(await chart.locator(".newest").innerText(), write(windows.at(-1).utilization_avg_ratio, "ratio"));
  const cell = page.locator('#newest [data-column="power_watts"]');
  assert.equal(Number(await cell.getAttribute("data-value")), windows.at(-1).power_watts);
  assert.equal(await cell.evaluate((one) => one.textContent), write(windows.at(-1).power_watts, "watts"));
  ok("numbers on the page are those of airan query");

  // The gap is a gap; the window that was computed again is marked.
  const path = chart.locator(".line");
  assert.equal(await path.getAttribute("data-runs"), "2");
  assert.equal((await path.getAttribute("d")).match(/M/g).length, 2);
  const gap = chart.locator(".gap").first();
  assert.deepEqual([await gap.getAttribute("data-from"), await gap.getAttribute("data-to")].map(Number), [start + 40_000, start + 70_000]);
  assert.deepEqual(await chart.locator(".again").evaluateAll((all) => all.map((one) => [Number(one.dataset.start), one.dataset.revision])), [[lateStart, "1"]]);
  assert.equal(await page.locator("[data-again]").getAttribute("data-again"), "1");
  await page.locator('[data-site="north-001"] .again-note').waitFor();
  await chart.locator("svg").focus();
  await page.keyboard.press("Home");
  const first = windows[0];
  assert.ok((await chart.locator(".readout").innerText()).endsWith(write(first.utilization_avg_ratio, "ratio")));
  for (let n = 0; n < windows.findIndex((window) => window.start === lateStart); n += 1) await page.keyboard.press("ArrowRight");
  assert.match(await chart.locator(".readout").innerText(), /computed again, revision 1/);
  assert.match(await chart.locator("svg").getAttribute("aria-label"), /1 gaps; 1 windows computed again/);
  ok("the gap is a gap, the restated window is marked, arrow keys step through windows");
  await picture(page, "light", { fullPage: true });

  // The focus stays where it is while the page looks again.
  const looks = () => page.evaluate(() => performance.getEntriesByType("resource").filter((one) => one.name.includes("/api/windows")).length);
  const seen = await looks();
  await until("the page has looked again", async () => await looks() > seen);
  assert.equal(await page.evaluate(() => document.activeElement.closest("figure")?.dataset.column), "utilization_avg_ratio");

  // A hostile name is text.
  await page.locator("[data-site]").filter({ hasText: "onerror" }).click();
  await page.waitForFunction(() => document.querySelector("#site-name")?.textContent.includes("onerror"));
  await page.locator(".chart .line").first().waitFor({ state: "attached" });
  assert.ok((await text("#site-name")).startsWith(HOSTILE));
  assert.ok((await text("#site")).includes(SCRIPT));
  assert.equal(await page.locator("img, #site script").count(), 0);
  assert.match(await page.title(), /^airan page$/);
  ok("a site and a device named as markup are shown as text and do nothing");

  // In the dark, on a phone.
  await page.locator('[data-site="home"]').click();
  await page.locator('[data-pipeline="host_load"]').click();
  await page.locator('figure[data-column="cpu_utilization_ratio"] .line').waitFor({ state: "attached" });
  await page.emulateMedia({ colorScheme: "dark" });
  assert.equal(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), "rgb(16, 20, 26)");
  await picture(page, "dark", { fullPage: true });
  for (const [name, width] of [["phone", 390], ["narrow", 320]]) {
    await page.setViewportSize({ width, height: 844 });
    await page.waitForFunction(() => [...document.querySelectorAll(".plot")].every((one) => one.viewBox.baseVal.width <= innerWidth));
    assert.ok(await page.evaluate(() => document.scrollingElement.scrollWidth <= innerWidth), `${width} pixels wide`);
    await picture(page, name, { fullPage: true });
  }
  ok("dark, and as wide as a phone without scrolling sideways");

  // An agent has no lake, and its page says where there is one.
  const agent = await context.newPage();
  agent.on("pageerror", (error) => wrong.push(String(error)));
  await agent.goto(AGENT_PAGE);
  await agent.getByText("This process has no lake").waitFor({ timeout: DEADLINE });
  assert.equal(await agent.locator(".part.absent").count(), 4);
  await picture(agent, "agent", { fullPage: true });
  await agent.close();
  ok("an agent's page says that there is no lake");

  assert.deepEqual(wrong, [], "errors on the console");
  assert.deepEqual([...asked].sort(), [PAGE, AGENT_PAGE].sort(), "requests to elsewhere");
  ok("no error on the console, no request to elsewhere");

  // When airan goes, the page says so and keeps what it had.
  process.kill(Number(UP), "SIGTERM");
  await page.locator("#trouble").filter({ hasText: "does not answer" }).waitFor({ timeout: DEADLINE });
  assert.ok(await page.locator(".part").count() === 5);
  ok("a process that is gone is told");
} finally {
  await context.close();
}
