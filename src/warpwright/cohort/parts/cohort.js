"use strict";
document.documentElement.classList.add("js");
const table = document.querySelector(".pairs");
const body = table.tBodies[0];
const rows = [...body.rows];
const heads = [...table.tHead.rows[0].cells];

// A value that is not there comes last, whichever way a column is turned.
function compare(kind, turn) {
  return ([a], [b]) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    return turn * (kind === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));
  };
}

function sort(head) {
  const column = heads.indexOf(head);
  const first = head.dataset.worst === "high" ? "descending" : "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const way = head.getAttribute("aria-sort") === first ? other : first;
  for (const one of heads) one.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", way);
  const keyed = rows.map((row) => {
    const value = row.cells[column].dataset.v;
    return [head.dataset.kind === "number" && value !== "" ? Number(value) : value, row];
  });
  keyed.sort(compare(head.dataset.kind, way === "ascending" ? 1 : -1));
  body.append(...keyed.map(([, row]) => row));
}

for (const head of heads) {
  const button = head.querySelector("button");
  if (button) button.addEventListener("click", () => sort(head));
}

const find = document.getElementById("find");
const shown = document.getElementById("shown");
find.addEventListener("input", () => {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
    count += !row.hidden;
  }
  shown.textContent = words.length ? `${count} of ${rows.length} pairs` : "";
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.closest("input")) {
    event.preventDefault();
    find.focus();
  }
});
