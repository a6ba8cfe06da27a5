// Tables in a .sortable: a click on a heading sorts by it, and long ones get a field that filters their rows.
"use strict";

const FILTER_FROM = 12; // rows

/** The number that a cell begins with, or NaN: "0.718", "34.0M", "12.68 ms". */
function numberOf(text) {
  const found = /^[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?/.exec(text);
  return found ? Number(found[0].replaceAll(",", "")) : NaN;
}

function compare(a, b) {
  const [x, y] = [numberOf(a), numberOf(b)];
  if (!Number.isNaN(x) && !Number.isNaN(y)) return x - y;
  return a.localeCompare(b, "en", { numeric: true });
}

function sortBy(table, heading) {
  const column = [...heading.parentNode.children].indexOf(heading);
  const body = table.tBodies[0];
  const textOf = ({ cells }) => cells[column].dataset.value ?? cells[column].textContent.trim();
  // figures begin with the largest, words with "a"; the second click turns that round
  const filled = [...body.rows].map(textOf).filter(Boolean);
  const numeric = filled.length > 0 && filled.every((text) => !Number.isNaN(numberOf(text)));
  const old = heading.getAttribute("aria-sort");
  const order = (old === null) === numeric || old === "ascending" ? "descending" : "ascending";
  const direction = order === "ascending" ? 1 : -1;
  const sorted = [...body.rows].sort((one, other) => {
    const [a, b] = [textOf(one), textOf(other)];
    if (!a || !b) return a === b ? 0 : a ? -1 : 1; // what is empty comes last
    return direction * compare(a, b);
  });
  for (const each of heading.parentNode.children) each.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", order);
  body.append(...sorted);
}

function addFilter(box, table) {
  const field = document.createElement("input");
  field.type = "search";
  field.className = "filter";
  field.placeholder = "Filter, such as: hrnet 384";
  field.setAttribute("aria-label", "Filter the rows of this table");
  const shown = document.createElement("span");
  shown.className = "shown";
  shown.setAttribute("role", "status");
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      count += row.hidden ? 0 : 1;
    }
    shown.textContent = words.length ? `${count} of ${table.tBodies[0].rows.length}` : "";
  });
  box.prepend(field, shown);
}

for (const box of document.querySelectorAll(".sortable")) {
  const table = box.querySelector("table");
  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sortBy(table, heading));
    heading.append(button);
  }
  if (table.tBodies[0].rows.length >= FILTER_FROM) addFilter(box, table);
}
