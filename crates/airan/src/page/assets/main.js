// The page: the path is looked at each two seconds, the lake each fifteen.

import { ask, repeat } from "./ask.js";
import { showOverview } from "./path.js";
import { refresh, start } from "./site.js";

const trouble = document.getElementById("trouble");

repeat(2_000, async () => {
  try {
    showOverview(await ask("/api/overview"));
    trouble.hidden = true;
  } catch (error) {
    const told = `${error.message} The numbers below are those of the last answer.`;
    if (trouble.textContent !== told) trouble.textContent = told;
    trouble.hidden = false;
  }
});

let look = () => {};
start(() => look());
look = repeat(15_000, refresh);
