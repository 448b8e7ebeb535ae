// Turns each quiz question, a paragraph with the options (a) to (d) before a folded answer, into one that can be
// clicked. Nothing is stored. Without this script, or where a question reads otherwise, the folded answer remains.

const LETTERS = ["a", "b", "c", "d"];

// Deal the nodes of a paragraph out: the question first, then one fragment for each option.
function deal(paragraph) {
  const parts = [document.createDocumentFragment()];
  for (const node of [...paragraph.cloneNode(true).childNodes]) {
    let rest = node;
    while (rest.nodeType === Node.TEXT_NODE && parts.length <= LETTERS.length) {
      const at = rest.data.search(new RegExp(`\\(${LETTERS[parts.length - 1]}\\)\\s`));
      if (at < 0) break;
      const option = rest.splitText(at);
      option.data = option.data.slice(4);
      parts.at(-1).append(rest);
      parts.push(document.createDocumentFragment());
      rest = option;
    }
    parts.at(-1).append(rest);
  }
  for (const part of parts.slice(1)) {
    const last = part.lastChild;
    if (last?.nodeType === Node.TEXT_NODE) last.data = last.data.replace(/[,;.]?\s*$/, "");
  }
  return parts;
}

function clickable(paragraph, fold) {
  const right = fold.textContent.replace(/^\s*Answer\s*/, "").match(/^\(([a-d])\)/)?.[1];
  const [question, ...options] = deal(paragraph);
  if (!right || options.length !== LETTERS.length) return;

  const quiz = document.createElement("fieldset"), legend = document.createElement("legend");
  quiz.className = "quiz";
  legend.append(question);
  const verdict = document.createElement("p");
  verdict.className = "quiz-verdict";
  verdict.setAttribute("aria-live", "polite");
  const buttons = options.map((option, index) => {
    const button = document.createElement("button"), letter = document.createElement("span");
    button.type = "button";
    letter.className = "quiz-letter";
    letter.textContent = `(${LETTERS[index]})`;
    const text = document.createElement("span");
    text.append(option);
    button.append(letter, text);
    button.addEventListener("click", () => {
      const hit = LETTERS[index] === right;
      for (const other of buttons) delete other.dataset.verdict;
      button.dataset.verdict = hit ? "right" : "wrong";
      verdict.textContent = `(${LETTERS[index]}) is ${hit ? "right" : "wrong"}. ` +
        (hit ? "The answer below says why." : "The answer below says why; you can choose again.");
      fold.open = true;
    });
    return button;
  });
  quiz.append(legend, ...buttons, verdict);
  paragraph.replaceWith(quiz);
}

function quizzes() {
  for (const fold of document.querySelectorAll("main details")) {
    const paragraph = fold.previousElementSibling;
    if (paragraph?.matches("p") && /^Question \d+\./.test(paragraph.textContent)) clickable(paragraph, fold);
  }
}

// Mathematics is drawn first, so that options hold drawn formulas.
document.addEventListener("DOMContentLoaded", async () => {
  if (document.querySelector("script[src*=mathjax]")) {
    while (!window.MathJax?.startup?.promise) await new Promise((resolve) => setTimeout(resolve, 50));
    await window.MathJax.startup.promise;
  }
  quizzes();
  document.documentElement.dataset.quizzes = "ready";
});
