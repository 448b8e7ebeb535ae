// Keeps on one line what belongs together: a number and its %, on a phone the numbers of a table's cell, an inline formula and the
// marks around it. And shows all of a formula.

function together(article) {
  const walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode;
    if (!text.parentElement.closest("pre, code, script, textarea")) text.data = text.data.replace(/(\d) %/g, "$1\u00a0%");
  }
  for (const formula of article.querySelectorAll("span.math")) {
    const after = formula.nextSibling;
    const mark = after?.nodeType === Node.TEXT_NODE ? after.data.match(/^[.,;:!?)’”]+/)?.[0] : undefined;
    const before = formula.previousSibling?.data?.match(/[(“]$/)?.[0];
    if (!mark && !before) continue;
    const box = document.createElement("span");
    box.className = "together";
    formula.replaceWith(box);
    if (before) {
      box.previousSibling.data = box.previousSibling.data.slice(0, -before.length);
      box.append(before);
    }
    box.append(formula);
    if (mark) {
      after.data = after.data.slice(mark.length);
      box.append(mark);
    }
  }
  for (const cell of article.querySelectorAll(".cell_output td")) {
    if (/^([-+−±–\d.,()%\s]|to|one seed)+$/.test(cell.textContent)) cell.classList.add("numbers");
  }
}

// The theme cuts an inline formula that is wider than the page; here it scrolls.
function scrollable() {
  for (const formula of document.querySelectorAll("article span.math > mjx-container")) {
    formula.parentElement.classList.toggle("wide", formula.offsetWidth > formula.parentElement.clientWidth + 1);
  }
}

addEventListener("DOMContentLoaded", () => document.querySelectorAll("article").forEach(together));
addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  scrollable();
});
addEventListener("toggle", scrollable, true);  // what a fold held back
addEventListener("resize", scrollable);
