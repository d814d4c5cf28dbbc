// The clips of the data by class.
import { ClipList } from "./list.js";
import { Player } from "./player.js";
import { ask, find, newest, query, say } from "./tools.js";

export function startData(panel) {
  const split = find("#split"), name = find("#class"), status = find("#clips-status");
  if (!split) return;         // no set has labels
  const player = new Player(find(".player", panel)), turn = newest(), listTurn = newest();
  const list = new ClipList(find("#clips"), "Clips of the class", { choose, more: show, start: () => player.toggle() });

  async function choose(row) {
    const current = turn();
    try {
      const description = await ask(`/sound/${row.sound}`);
      if (!current()) return;
      say(status, "");
      await player.show(description);
    } catch (error) {
      if (!current()) return;
      player.hide();
      say(status, `${row.name}: ${error.message}`, true);
    }
  }

  async function show(first = 0) {
    const current = listTurn();
    if (!first) player.hide();
    find("#clips").hidden = !name.value;
    if (!name.value) return say(status, "");
    try {
      const { total, rows } = await ask(`/clips?${query({ split: split.value, name: name.value, first })}`);
      if (!current()) return;
      list.show(rows, total, first > 0);
      say(status, total === 1 ? "1 clip" : `${total} clips`);
      if (!first) list.select(0);
    } catch (error) {
      say(status, error.message, true);
    }
  }

  split.addEventListener("change", () => show());
  name.addEventListener("change", () => show());
}
