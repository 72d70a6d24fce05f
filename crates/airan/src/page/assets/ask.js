// Questions to this server. Each has a deadline; a refusal's reason is the error's message.

const DEADLINE = 20_000;

export async function ask(path, parameters) {
  const query = new URLSearchParams(parameters ?? {}).toString();
  let answer;
  try {
    answer = await fetch(query ? `${path}?${query}` : path, { signal: AbortSignal.timeout(DEADLINE), cache: "no-store" });
  } catch (error) {
    throw new Error(error.name === "TimeoutError" ? `no answer within ${DEADLINE / 1000} s` : "airan does not answer; is it running?");
  }
  const text = await answer.text();
  let body = null;
  try {
    body = JSON.parse(text);
  } catch {
    // Told below with the status.
  }
  if (!answer.ok || body === null) {
    const told = new Error(body?.error ?? (text.trim().slice(0, 300) || `status ${answer.status}`));
    told.status = answer.status;
    throw told;
  }
  return body;
}

// Does `work` now and again each `every` milliseconds while the page is looked at. Never twice at once.
export function repeat(every, work) {
  let timer = null;
  let running = false;
  let again = false;
  const run = async () => {
    clearTimeout(timer);
    if (running) {
      again = true;
      return;
    }
    running = true;
    try {
      if (document.visibilityState === "visible") await work();
    } finally {
      running = false;
      timer = setTimeout(run, again ? 0 : every);
      again = false;
    }
  };
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && run());
  run();
  return run;
}
