const derivations = [...document.querySelectorAll("details.derivation")];
const steps = [...document.querySelectorAll("details.step")];
const buttons = [...document.querySelectorAll("[data-show]")];
const levels = {statements: [false, true], outlines: [true, false], everything: [true, true]};

function show(level) {
  const here = [...document.querySelectorAll("article")].find(one => one.getBoundingClientRect().bottom > 0);
  const inside = here && here.getBoundingClientRect().top < 0;
  for (const one of derivations) one.open = levels[level][0];
  for (const one of steps) one.open = levels[level][1];
  if (inside) here.scrollIntoView();
}

function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let one = target; one; one = one.parentElement) if (one.tagName === "DETAILS") one.open = true;
  target?.scrollIntoView();
}

for (const one of document.querySelectorAll(".folding, .folding-help")) one.hidden = false;
for (const button of buttons) button.addEventListener("click", () => show(button.dataset.show));
addEventListener("keydown", event => {
  const button = buttons["123".indexOf(event.key)];
  if (button && !event.ctrlKey && !event.altKey && !event.metaKey) button.click();
});
addEventListener("hashchange", reveal);
if (location.hash) reveal();

let folded = [];
addEventListener("beforeprint", () => {
  folded = [...derivations, ...steps].filter(one => !one.open);
  for (const one of folded) one.open = true;
});
addEventListener("afterprint", () => {
  for (const one of folded) one.open = false;
});
