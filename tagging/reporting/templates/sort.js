"use strict";
// Sorts a table by a column when its heading is chosen, with the mouse or the keyboard. Numbers sort as numbers, and
// missing values come last. Without this script, the page shows the same tables.
const NUMBER = /^[-+\u2212]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?(?=$|[\s%\u00b1/])/i;
const COLLATOR = new Intl.Collator("en", { numeric: true });

function number(text) {
  const match = NUMBER.exec(text);
  return match ? Number(match[0].replaceAll(",", "").replace("\u2212", "-")) : NaN;
}

function sortRows(table, column, descending) {
  const rows = [...table.tBodies[0].rows].map((row) => ({ row, text: row.cells[column].textContent.trim() }));
  const missing = rows.filter(({ text }) => ["", "-"].includes(text));
  const present = rows.filter((entry) => !missing.includes(entry));
  const numeric = present.every(({ text }) => !Number.isNaN(number(text)));
  present.sort((a, b) => (descending ? -1 : 1)
    * (numeric ? number(a.text) - number(b.text) : COLLATOR.compare(a.text, b.text)));
  table.tBodies[0].append(...[...present, ...missing].map(({ row }) => row));
}

for (const table of document.querySelectorAll("table:not(.matrix, .dots)")) {
  const headings = [...table.querySelectorAll("thead th")];
  if (!headings.length || table.tBodies[0].rows.length < 2) continue;
  for (const [column, heading] of headings.entries()) {
    // Not a button element: browsers do not repeat a heading with one on each printed page.
    const button = document.createElement("span");
    button.className = "sort";
    button.role = "button";
    button.tabIndex = 0;
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("keydown", (event) => {
      if (!["Enter", " "].includes(event.key)) return;
      event.preventDefault();
      button.click();
    });
    button.addEventListener("click", () => {
      const descending = heading.getAttribute("aria-sort") === "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sortRows(table, column, descending);
    });
  }
}

// Tables that are folded are printed too.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details:not([open])")) {
    details.open = true;
    details.dataset.folded = "";
  }
});
addEventListener("afterprint", () => {
  for (const details of document.querySelectorAll("details[data-folded]")) {
    details.open = false;
    delete details.dataset.folded;
  }
});
