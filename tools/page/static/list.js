// A list of clips with the keyboard of a list box: the arrows choose the next clip, and Enter plays it.
import { make } from "./tools.js";

export class ClipList {
  // `choose` gets the row that is chosen, `more` gets the number of rows so far, and `start` plays.
  constructor(place, label, { choose, more, start }) {
    this.box = make("div", { role: "listbox", tabindex: "0", "aria-label": label });
    this.next = make("button", { type: "button", class: "more" });
    place.replaceChildren(this.box, this.next);
    this.rows = [];
    this.choose = choose;
    this.id = place.id;
    this.next.addEventListener("click", () => more(this.rows.length));
    this.box.addEventListener("click", event => {
      const option = event.target.closest("[role=option]");
      if (option) this.pick(Number(option.dataset.row));
    });
    this.box.addEventListener("keydown", event => {
      const moves = { ArrowDown: this.place + 1, ArrowUp: this.place - 1, Home: 0, End: this.rows.length - 1,
                      PageDown: this.place + 10, PageUp: this.place - 10 };
      if (event.key in moves) this.pick(Math.min(Math.max(moves[event.key], 0), this.rows.length - 1));
      else if (event.key === "Enter" || event.key === " ") start();
      else return;
      event.preventDefault();
    });
  }

  // Show rows from the first one, or add them to those that are shown.
  show(rows, total, added = false) {
    if (!added) {
      this.box.replaceChildren();
      this.rows = [], this.place = -1;
      this.box.removeAttribute("aria-activedescendant");
      this.box.scrollTop = 0;
    }
    for (const row of rows) {
      const number = this.rows.push(row) - 1;
      const attributes = { role: "option", id: `${this.id}-${number}`, "aria-selected": "false", "data-row": number };
      this.box.append(make("div", attributes,
        make("b", {}, row.precision === undefined ? row.name : `${row.precision}  ${row.name}`),
        make("small", {}, row.labels === undefined ? row.text : `labels: ${row.labels}`),
        ...(row.labels === undefined ? [] : [make("small", {}, `predicted: ${row.text}`)])));
    }
    this.next.hidden = this.rows.length >= total;
    this.next.textContent = `Show more: ${this.rows.length} of ${total} are shown`;
    this.box.hidden = !this.rows.length;
  }

  // Select a row for a visitor. On a narrow screen the player is below, so the list moves to the top.
  pick(place) {
    if (matchMedia("(max-width: 800px)").matches) this.box.scrollIntoView({ block: "start" });
    this.select(place);
  }

  select(place) {
    if (place === this.place || !this.rows[place]) return;
    this.box.querySelector("[aria-selected=true]")?.setAttribute("aria-selected", "false");
    this.place = place;
    const option = this.box.children[place];
    option.setAttribute("aria-selected", "true");
    this.box.setAttribute("aria-activedescendant", option.id);
    option.scrollIntoView({ block: "nearest" });
    this.choose(this.rows[place]);
  }
}
