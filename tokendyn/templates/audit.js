"use strict";

function key(row, column, numeric) {
  const cell = row.cells[column];
  if (!numeric) return cell.textContent.trim();
  return cell.dataset.value === "" ? null : Number(cell.dataset.value);
}

function sort(table, column, descending) {
  const numeric = !table.tHead.rows[0].cells[column].classList.contains("text");
  const rows = [...table.tBodies[0].rows].map(row => [key(row, column, numeric), row]);
  const compare = numeric ? (a, b) => a - b : new Intl.Collator("en", {numeric: true}).compare;
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null); // what is missing stays last
    return descending ? compare(b, a) : compare(a, b);
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
  for (const heading of table.tHead.rows[0].cells) heading.removeAttribute("aria-sort");
  table.tHead.rows[0].cells[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sort(table, column, heading.getAttribute("aria-sort") === "ascending"));
  });
}

for (const filter of document.querySelectorAll("select[data-filters]")) {
  const rows = [...document.getElementById(filter.dataset.filters).tBodies[0].rows];
  const output = filter.closest("p").querySelector("output");
  filter.addEventListener("change", () => {
    for (const row of rows) row.hidden = filter.value !== "" && row.dataset.layer !== filter.value;
    output.value = `${rows.filter(row => !row.hidden).length} of ${rows.length} heads`;
  });
}

for (const one of document.querySelectorAll(".filter, .sorting-help")) one.hidden = false;

function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (const one of target.querySelectorAll(":scope > details")) one.open = true;
  for (let one = target; one; one = one.parentElement) if (one.tagName === "DETAILS") one.open = true;
  target.scrollIntoView();
}

addEventListener("hashchange", reveal);
if (location.hash) reveal();

let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details.layer, .reasons details")].filter(one => !one.open);
  for (const one of folded) one.open = true;
});
addEventListener("afterprint", () => {
  for (const one of folded) one.open = false;
});
