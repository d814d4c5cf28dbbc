// The list of mistakes, and the confusions that lead to it.
import { ClipList } from "./list.js";
import { Player } from "./player.js";
import { ask, find, make, newest, query, say } from "./tools.js";

const SIZES = [12, 20, 28, 40];     // pixels of a cell
const READABLE = 20;                // pixels of a cell with a number

let filter = null;

export function startMistakes(panel) {
  const label = find("#label"), other = find("#other"), status = find("#mistakes-status"), bars = find("#predictions");
  const player = new Player(find(".player", panel)), turn = newest(), listTurn = newest();
  const list = new ClipList(find("#worst"), "Clips, the lowest precision first",
                            { choose, more: show, start: () => player.toggle() });

  let count = "";             // what the status says unless a clip cannot be shown

  async function choose(row) {
    const current = turn();
    say(status, count);
    try {
      const shown = await ask(`/mistakes/${row.clip}`);
      if (!current()) return;
      bars.innerHTML = shown.bars;        // escaped by the server
      if (!row.sound) throw new Error("The clip is no longer in the data.");
      const description = await ask(`/sound/${row.sound}`);
      if (!current()) return;
      await player.show(description);
    } catch (error) {
      if (!current()) return;
      player.hide();
      say(status, `${row.name}: ${error.message}`, true);
    }
  }

  async function show(first = 0) {
    const current = listTurn();
    try {
      const { total, rows } = await ask(`/mistakes?${query({ name: label.value, other: other.value, first })}`);
      if (!current()) return;
      list.show(rows, total, first > 0);
      const which = (label.value ? ` with the label ${label.value}` : "")
        + (other.value ? ` where ${other.value} outranks ${label.value ? "it" : "a label"}` : "");
      count = `${total === 1 ? "1 clip" : `${total.toLocaleString("en")} clips`}${which}`;
      say(status, count);
      if (first) return;
      if (total) list.select(0); else { player.hide(); bars.replaceChildren(); }
    } catch (error) {
      say(status, error.message, true);
    }
  }

  filter = (row, column) => {
    label.value = row, other.value = column;
    show();
    panel.scrollIntoView();
    list.box.focus({ preventScroll: true });
  };
  label.addEventListener("change", () => show());
  other.addEventListener("change", () => show());
  show();
}

// Give matrices a zoom, and lead from the cells of confusions to their clips. The arrow keys move between the cells.
export function enhanceMatrices(place) {
  for (const frame of place.querySelectorAll(".matrix-frame")) {
    const table = find(".matrix", frame), rows = [...table.tBodies[0].rows];
    let size = 2;
    const zoom = step => {
      size = Math.min(Math.max(size + step, 0), SIZES.length - 1);
      frame.style.setProperty("--cell", `${SIZES[size]}px`);
      frame.classList.toggle("small", SIZES[size] < READABLE);
    };
    const hint = make("span", { "aria-live": "polite" });
    const tools = make("div", { class: "matrix-tools" },
                       make("button", { type: "button", "aria-label": "Larger cells" }, "+"),
                       make("button", { type: "button", "aria-label": "Smaller cells" }, "−"), hint);
    tools.children[0].addEventListener("click", () => zoom(1));
    tools.children[1].addEventListener("click", () => zoom(-1));
    frame.before(tools);
    const rest = table.dataset.kind === "confusions" ? "A cell leads to its clips: Enter or a click." : "";
    hint.textContent = rest;
    let cell = rows[0]?.cells[1];
    if (!cell) continue;
    cell.tabIndex = 0;
    frame.removeAttribute("tabindex");          // its cells take the focus
    const focus = (row, column) => {
      cell.tabIndex = -1;
      cell = rows[Math.min(Math.max(row, 0), rows.length - 1)].cells[Math.min(Math.max(column, 1), rows.length)];
      cell.tabIndex = 0;
      cell.focus();
    };
    const openClips = () => {
      if (table.dataset.kind !== "confusions" || !cell.title) return;
      filter(cell.parentElement.cells[0].title, table.tHead.rows[0].cells[cell.cellIndex].title);
    };
    const describe = target => { hint.textContent = target.title ? `${target.title}. ` : rest; };
    table.addEventListener("focusin", event => describe(event.target));
    table.addEventListener("mouseover", event => describe(event.target));
    table.addEventListener("click", event => {
      const target = event.target.closest("tbody td");
      if (!target) return;
      focus(target.parentElement.sectionRowIndex, target.cellIndex);
      openClips();
    });
    table.addEventListener("keydown", event => {
      const row = cell.parentElement.sectionRowIndex, column = cell.cellIndex;
      const moves = { ArrowDown: [row + 1, column], ArrowUp: [row - 1, column], ArrowRight: [row, column + 1],
                      ArrowLeft: [row, column - 1], Home: [row, 1], End: [row, rows.length] };
      if (event.key in moves) focus(...moves[event.key]);
      else if (event.key === "Enter") openClips();
      else return;
      event.preventDefault();
    });
  }
}
