// Keeps on one line what belongs together: a number and its %, an inline formula and the mark that follows it.

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
}

addEventListener("DOMContentLoaded", () => document.querySelectorAll("article").forEach(together));
