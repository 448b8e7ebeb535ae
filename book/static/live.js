// Three instruments that stand in the pages: a Diffusion Transformer that paints a digit; the forward process on a
// digit that the reader draws, with the network's guess at what was drawn; and emoji that were painted beforehand, to
// choose from. The network is that of dit.js, the emoji are those of paintings.js.
//
// An instrument follows each cell with the tag live-painter, live-sketch or live-gallery, and each figure of such a
// class. What it needs, 2 MB of weights or 0.7 MB of emoji, is loaded when the reader first asks for something or comes
// near; nothing is stored, and no other host is asked. Without this script the figure remains.

{
  const SIZE = 28, WEIGHTS = "vendor/dit-digits-28-small.js", HERE = document.currentScript.src.replace(/[^/]*$/, "");
  const calm = matchMedia("(prefers-reduced-motion: reduce)");  // then only what stays is shown
  let worker;

  const loaded = (file) => new Promise((resolve, reject) => {
    const script = document.createElement("script");
    Object.assign(script, { src: HERE + file, onload: resolve, onerror: reject });
    document.head.append(script);
  });

  // A function that asks the worker of dit.js one thing and promises its answer.
  const network = () => (worker ??= loaded(WEIGHTS).then(() => new Promise((resolve, reject) => {
    const { worker: text, ...weights } = window.DIT;
    const thread = new Worker(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
    const ask = (what, value) => new Promise((answer) => {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = ({ data }) => answer(data);
      thread.postMessage([what, value], [port2]);
    });
    thread.onerror = reject;
    ask("unpack", weights).then(() => resolve(ask));
  })));

  function draw(canvas, x) {
    const image = new ImageData(SIZE, SIZE);
    x.forEach((value, k) => {
      const grey = Math.round((Math.min(1, Math.max(-1, value)) + 1) * 127.5);
      image.data.set([grey, grey, grey, 255], 4 * k);
    });
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  const canvas = (name, label, more = "", size = SIZE) =>
    `<figure><canvas class="${name}" width="${size}" height="${size}" aria-label="${label}"
    ${more || 'role="img"'}></canvas><figcaption>${label}</figcaption></figure>`;
  const range = (name, words, from, to, step, at) =>
    `<label>${words} <output>${at}</output>
    <input type="range" name="${name}" min="${from}" max="${to}" step="${step}" value="${at}"
    autocomplete="off"></label>`;

  // A box with a form and pictures, whose parts are found by their class; the numbers beside its sliders follow them.
  function instrument(name, html) {
    const box = document.createElement("section");
    box.className = "live";
    box.setAttribute("aria-label", name);
    box.innerHTML = html;
    const part = (selector) => box.querySelector(selector);
    box.addEventListener("input", ({ target }) => {
      if (target.type === "range") target.parentElement.querySelector("output").value = target.value;
    });
    const say = (words) => { part("[role=status]").textContent = words; };
    const failed = () => say("It could not be loaded: this needs the book's files, and a browser with workers.");
    return { box, part, say, failed };
  }

  // -------------------------------------------------------------------------------------------- the painter

  const SAMPLERS = { ddim: "DDIM", ddpm: "DDPM", dpm: "DPM-Solver++" };
  const MOMENTS = 8;
  const PAINTER = `<form>
    <fieldset class="live-digits"><legend>Digit</legend>${[...Array(10).keys()].map((digit) =>
      `<label><input type="radio" name="digit" value="${digit}" ${digit === 3 ? "checked" : ""}
      autocomplete="off"><span>${digit}</span></label>`).join("")}</fieldset>
    ${range("guidance", "Guidance", 0, 8, 0.5, 2)} ${range("steps", "Steps", 2, 50, 1, 25)}
    <label>Sampler <select name="sampler" autocomplete="off">${Object.entries(SAMPLERS).map(([key, words]) =>
      `<option value="${key}">${words}</option>`).join("")}</select></label>
    <label>Seed <input type="number" name="seed" min="0" max="4294967295" step="1" value="0" required
    autocomplete="off"></label>
    <p><button class="live-paint">Paint</button> <button type="button" class="live-again">Another seed</button></p>
    </form>
    <div class="live-before"></div>
    <div class="live-pictures" hidden>${canvas("live-noisy", "The digit")}
    ${canvas("live-guess", "The network's guess")}
    <div class="live-film" role="img" aria-label="${MOMENTS} moments on the way from noise to the digit">${
      `<canvas width="${SIZE}" height="${SIZE}"></canvas>`.repeat(MOMENTS)}</div></div>
    <progress value="0" aria-label="Steps done" hidden></progress>
    <p role="status">Press Paint, and a network of 726,000 weights paints in this page. They are loaded then, 2 MB.</p>`;

  function painter(place) {
    const { box, part, say, failed } = instrument("Paint a digit", PAINTER);
    part(".live-before").append(...place.querySelectorAll("img"));  // the figure, until the reader paints
    place.classList.add("live-replaced");
    const form = part("form"), button = part(".live-paint"), progress = part("progress");
    const film = box.querySelectorAll(".live-film canvas");
    let turn = 0, painting = false, seen = true, wake = () => {};
    new IntersectionObserver(([entry]) => { seen = entry.isIntersecting; if (seen) wake(); }).observe(box);

    function show({ x, start, left }, steps) {
      progress.value = (steps - left) / steps;
      film.forEach((canvas, k) => {
        const moment = Math.round((k * steps) / (MOMENTS - 1));
        if (moment === steps - left) draw(canvas, x);
      });
      if (calm.matches && left > 0) return;
      draw(part(".live-noisy"), x);
      draw(part(".live-guess"), start);
    }

    function rest(words) {
      painting = false;
      button.textContent = "Paint";
      progress.hidden = true;
      say(words);
    }

    async function paint() {
      if (!form.reportValidity()) return;
      const mine = ++turn, values = Object.fromEntries(new FormData(form)), { sampler } = values;
      const [digit, guidance, steps, seed] = ["digit", "guidance", "steps", "seed"].map((name) => Number(values[name]));
      const what = `${digit === 8 ? "An" : "A"} ${digit}`;
      painting = true;
      button.textContent = "Stop";
      say(worker ? `${what} is being painted.` : `The weights are being loaded. ${what} is then painted.`);
      const ask = await network();
      if (mine !== turn) return;
      part(".live-before").hidden = true;
      part(".live-pictures").hidden = progress.hidden = false;
      part(".live-noisy").setAttribute("aria-label", `${what} on its way out of noise`);
      const began = performance.now();
      let frame = await ask("begin", { digit, guidance, steps, sampler, seed });
      while (mine === turn) {
        show(frame, steps);
        if (frame.left === 0) {
          const seconds = ((performance.now() - began) / 1000).toFixed(1);
          const how = guidance === 1 ? "without guidance" : `with guidance ${guidance}`;
          part(".live-noisy").setAttribute("aria-label", `${what}, painted ${how}`);
          const words = `in ${steps} steps of ${SAMPLERS[sampler]} from seed ${seed} ${how}`;
          return rest(`${what}, painted ${words}: ${seconds} s.`);
        }
        if (!seen) {
          say(`Out of sight: waiting at step ${steps - frame.left} of ${steps}.`);
          await new Promise((resolve) => { wake = resolve; });
          if (mine === turn) say(`${what} is being painted.`);
        }
        if (mine === turn) frame = await ask("next");
      }
    }
    const go = () => paint().catch(() => { worker = undefined; rest(""); failed(); });

    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!painting) return void go();
      turn++;
      wake();
      rest("Stopped.");
    });
    form.addEventListener("change", () => { if (worker) go(); });
    part(".live-again").addEventListener("click", () => {
      form.elements.seed.value = (Number(form.elements.seed.value) + 1) % 2 ** 32;
      go();
    });
    return box;
  }

  // --------------------------------------------------------------------------------------------- the sketch

  const SKETCH = `<p>Draw a digit with finger or mouse, or with the arrow keys (with Shift they only move the pen); then
    move the slider. The network is a Diffusion Transformer, that of chapter 16 for ${SIZE}×${SIZE} pixels, and its
    schedule the cosine.</p>
    <form>${range("t", "Step t", 0, 999, 1, 400)}
    <label>The network is told <select name="digit" autocomplete="off"><option value="10">nothing</option>${
      [...Array(10).keys()].map((digit) => `<option value="${digit}">${digit}</option>`).join("")}</select></label>
    <p><button type="button" class="live-clear">Clear</button>
    <button type="button" class="live-again">Other noise</button></p>
    </form>
    <div class="live-pictures">${canvas("live-drawn", "Draw here", 'role="application" tabindex="0"')}
    ${canvas("live-noisy", "The digit at step t")}${canvas("live-guess", "The network's guess")}</div>
    <p role="status">Asked for the first time, the network is loaded: 726,000 weights, 2 MB.</p>`;
  const SEVEN = [[7, 8], [13, 8], [20, 8], [17, 14], [14, 20], [13, 22]];  // what stands there at first

  function sketch() {
    const { box, part, say, failed } = instrument("Draw a digit, and noise it", SKETCH);
    const form = part("form"), paper = part(".live-drawn"), ink = new Float32Array(SIZE * SIZE).fill(-1);
    let pen = [14, 14], seed = 0, busy = false, stale = false;

    function line([x0, y0], [x1, y1]) {
      const dots = Math.ceil(2 * Math.hypot(x1 - x0, y1 - y0)) + 1;
      for (let i = 0; i <= dots; i++) for (let k = 0; k < ink.length; k++) {
        const x = x0 + ((x1 - x0) * i) / dots, y = y0 + ((y1 - y0) * i) / dots;
        const away = Math.hypot(x - (k % SIZE), y - Math.floor(k / SIZE));
        ink[k] = Math.max(ink[k], 2 * Math.min(1, Math.max(0, 2 - away)) - 1);
      }
      shown();
    }

    function shown() {
      draw(paper, ink);
      if (!paper.matches(":focus-visible")) return;
      const context = paper.getContext("2d");
      context.fillStyle = "#e69f00";
      context.fillRect(Math.round(pen[0]), Math.round(pen[1]), 1, 1);
    }

    async function guess() {
      stale = true;
      if (busy) return;
      busy = true;
      if (!worker) say("The network is being loaded.");
      const ask = await network();
      while (stale) {
        stale = false;
        const t = Number(form.elements.t.value), digit = Number(form.elements.digit.value);
        const { x, start, alphaBar } = await ask("guess", { clean: ink, t, digit, seed });
        draw(part(".live-noisy"), x);
        draw(part(".live-guess"), start);
        const error = ink.reduce((sum, value, k) => sum + Math.abs(value - start[k]) * 127.5, 0) / ink.length;
        say(`t = ${t}: x = ${Math.sqrt(alphaBar).toFixed(2)} x₀ + ${Math.sqrt(1 - alphaBar).toFixed(2)} ε. ` +
          `The guess is ${error.toFixed(0)} of 255 grey levels from the drawing, on average over its pixels.`);
      }
      busy = false;
    }
    const go = () => guess().catch(() => { busy = false; worker = undefined; failed(); });

    const place = ({ offsetX, offsetY }) => [offsetX, offsetY].map((at) => (at / paper.clientWidth) * SIZE - 0.5);
    paper.addEventListener("pointerdown", (event) => {
      paper.setPointerCapture(event.pointerId);
      line(pen = place(event), pen);
      go();
    });
    paper.addEventListener("pointermove", (event) => {
      if (!event.buttons) return;
      line(pen, (pen = place(event)));
      go();
    });
    paper.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!move) return;
      event.preventDefault();
      const from = pen;
      pen = pen.map((at, axis) => Math.min(SIZE - 1, Math.max(0, at + move[axis])));
      if (event.shiftKey) return shown();
      line(from, pen);
      go();
    });
    form.addEventListener("input", go);
    part(".live-again").addEventListener("click", () => { seed++; go(); });
    part(".live-clear").addEventListener("click", () => { ink.fill(-1); shown(); go(); });
    for (const change of ["focus", "blur"]) paper.addEventListener(change, shown);
    SEVEN.slice(1).forEach((to, k) => line(SEVEN[k], to));
    return box;
  }

  // -------------------------------------------------------------------------------------------- the gallery

  const EMOJI = 32, CHOICES = { names: "Words", hands: "Hand", scales: "Guidance", seeds: "Seed" };
  const SPLITS = { train: "training showed this drawing", pairs: "training showed this thing by other hands only",
    things: "training showed this thing by no hand", "": "this hand has no such drawing" };
  const GALLERY = `<form>${Object.entries(CHOICES).map(([key, words]) =>
      `<label>${words} <select name="${key}" autocomplete="off"></select></label>`).join("")}</form>
    <div class="live-pictures">${canvas("live-painted", "Painted", "", EMOJI)}
    ${canvas("live-true", "The hand's own drawing", "", EMOJI)}</div>
    <p role="status">The paintings are being loaded, 0.7 MB.</p>`;

  function gallery() {
    const { box, part, say, failed } = instrument("Choose words, a hand, guidance and a seed", GALLERY);
    const sheet = new Image(), chosen = (key) => part(`[name=${key}]`).selectedIndex;

    function show() {
      const { hands, seeds, splits } = window.PAINTINGS;
      const row = chosen("names") * hands.length + chosen("hands");
      const column = 1 + chosen("scales") * seeds.length + chosen("seeds");
      for (const [name, k] of [[".live-painted", column], [".live-true", 0]])
        part(name).getContext("2d").drawImage(sheet, EMOJI * k, EMOJI * row, EMOJI, EMOJI, 0, 0, EMOJI, EMOJI);
      const [words, hand, guidance, seed] = Object.keys(CHOICES).map((key) => part(`[name=${key}]`).value);
      const what = `${words}, as ${hand} would draw it`;
      part(".live-painted").setAttribute("aria-label", what);
      say(`${what}, with guidance ${guidance} from seed ${seed}: ${SPLITS[splits[row]]}.`);
    }

    async function open() {
      await loaded("paintings.js");
      for (const key of Object.keys(CHOICES))
        part(`[name=${key}]`).append(...window.PAINTINGS[key].map((it) => new Option(it)));
      part("[name=scales]").selectedIndex = 2;  // 4, as the chapter's figures have it
      sheet.onload = show;
      sheet.src = window.PAINTINGS.image;
      part("form").addEventListener("change", show);
    }
    new IntersectionObserver(([entry], observer) => {
      if (!entry.isIntersecting) return;
      observer.disconnect();
      open().catch(failed);
    }, { rootMargin: "400px" }).observe(box);
    return box;
  }

  document.addEventListener("DOMContentLoaded", () => {
    for (const [kind, make] of Object.entries({ painter, sketch, gallery }))
      document.querySelectorAll(`.tag_live-${kind}, .live-${kind}`).forEach((place) => place.after(make(place)));
  });
}
