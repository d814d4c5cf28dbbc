// Tabs, colours, and the parts of the page that are loaded when their tab is opened.
import { startData } from "./data.js";
import { startLive } from "./live.js";
import { enhanceMatrices, startMistakes } from "./mistakes.js";
import { startCompare } from "./compare.js";
import { startTag } from "./tag.js";
import { find, make, request } from "./tools.js";

const tabs = [...document.querySelectorAll("[role=tab]")];
const starts = { tag: startTag, live: startLive, data: startData, mistakes: startMistakes, runs: startCompare };
const started = new Set();

function open(tab, focus = false) {
  for (const each of tabs) {
    const chosen = each === tab;
    each.setAttribute("aria-selected", chosen);
    each.tabIndex = chosen ? 0 : -1;
    find(`#${each.getAttribute("aria-controls")}`).hidden = !chosen;
  }
  if (focus) tab.focus();
  const name = tab.getAttribute("aria-controls");
  // Not at the start: the browser would move the focus behind the tabs.
  if (started.size) history.replaceState(null, "", `#${name}`);
  document.dispatchEvent(new CustomEvent("tab", { detail: name }));
  if (!started.has(name)) {
    started.add(name);
    starts[name](find(`#${name}`));
  }
  find(`#${name}`).querySelectorAll(".loaded").forEach(load);
}

async function load(place) {
  if (place.dataset.state && !(place.dataset.again && place.dataset.state === "loaded")) return;
  place.dataset.state = "waiting";
  if (!place.childElementCount) place.replaceChildren(make("p", { role: "status" }, place.dataset.wait));
  try {
    place.innerHTML = await (await request(place.dataset.source)).text();      // escaped by the server
    place.dataset.state = "loaded";
    enhanceMatrices(place);
  } catch (error) {
    delete place.dataset.state;
    place.replaceChildren(make("p", { role: "status", class: "error" }, error.message));
  }
}

tabs.forEach((tab, place) => {
  tab.addEventListener("click", () => open(tab));
  tab.addEventListener("keydown", event => {
    const moves = { ArrowRight: place + 1, ArrowLeft: place - 1 + tabs.length, Home: 0, End: tabs.length - 1 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    open(tabs[moves[event.key] % tabs.length], true);
  });
});

const theme = find("#theme");
function paint() {
  document.documentElement.style.colorScheme = theme.value;
  document.dispatchEvent(new CustomEvent("colours"));
}
const asked = new URLSearchParams(location.search).get("theme");
const kept = localStorage.getItem("theme");
theme.value = ["light", "dark"].includes(asked) ? asked : ["light", "dark"].includes(kept) ? kept : "light dark";
theme.addEventListener("change", () => { localStorage.setItem("theme", theme.value); paint(); });
paint();

const named = () => tabs.find(tab => `#${tab.getAttribute("aria-controls")}` === location.hash);
window.addEventListener("hashchange", () => named() && open(named()));
open(named() || tabs[0]);
