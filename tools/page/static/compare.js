// Two runs side by side.
import { find, newest, query, request, say } from "./tools.js";

export function startCompare() {
  const run = find("#run"), against = find("#against"), status = find("#compare-status"), shown = find("#compared");
  const turn = newest();

  async function compare() {
    const current = turn();
    shown.replaceChildren();
    say(status, "");
    if (!run.value || !against.value) return;
    say(status, "The runs are being compared.");
    try {
      const text = await (await request(`/sections/compare?${query({ run: run.value, other: against.value })}`)).text();
      if (!current()) return;
      shown.innerHTML = text;         // escaped by the server
      say(status, "");
    } catch (error) {
      if (current()) say(status, error.message, true);
    }
  }

  run.addEventListener("change", compare);
  against.addEventListener("change", compare);
}
