"""The instruments in the pages: what the browser computes is what PyTorch computes, and every reader can use them."""

import base64
import io
import json
from functools import partial

import draw_paintings
import numpy as np
import pack_weights
import pytest
import torch
from PIL import Image

from ditbook import pipeline
from ditbook.diffusion import samplers, solvers
from ditbook.diffusion.guidance import ClassifierFreeGuidance

pytestmark = pytest.mark.site

PAINTERS, SKETCHES = ("book/index", "notebooks/16_dit"), ("notebooks/10_ddpm",)
GALLERIES = ("notebooks/19_text_to_image",)
STEPS = {"ddim": samplers.ddim, "ddpm": partial(samplers.ddpm, variance="posterior"), "dpm": solvers.dpm_solver}
SLOW = 120_000  # milliseconds that a painting may take on a busy machine
GREY = """canvas => [...canvas.getContext("2d").getImageData(0, 0, 28, 28).data].filter((_, k) => k % 4 === 0)"""
ASK = """async ([script, what, value]) => {
    if (!window.DIT) await new Promise((resolve) => {
        const tag = document.createElement("script");
        Object.assign(tag, {src: script, onload: resolve});
        document.head.append(tag);
    });
    const worker = new Worker(URL.createObjectURL(new Blob([window.DIT.worker])));
    const ask = (...message) => new Promise((answer) => {
        const {port1, port2} = new MessageChannel();
        port1.onmessage = ({data}) => answer(data);
        worker.postMessage(message, [port2]);
    });
    await ask("unpack", {...window.DIT});
    const found = await ask(what, value);
    worker.terminate();
    return Object.fromEntries(Object.entries(found).map(([key, x]) => [key, x.length ? [...x] : x]));
}"""


@pytest.fixture(scope="module")
def trained():
    return pipeline.load(pack_weights.NAME)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def painted(trained, digit, scale, steps, sampler, seed):
    """The digit that the package paints, as grey levels, (784,); all noise comes from one generator."""
    generator = seeded(seed)
    noise = torch.randn(1, 1, 28, 28, generator=generator)
    model = trained.model if scale == 1 else ClassifierFreeGuidance(trained.model, scale)
    process, y = trained.diffusion.respace(steps), torch.tensor([digit])
    x = samplers.sample(model, noise, process, step=STEPS[sampler], clip=1.0, generator=generator, y=y)
    return (x.clamp(-1, 1).flatten() + 1) * 127.5


def painter(tab):
    box = tab.locator("section.live:has(.live-paint)")
    box.scroll_into_view_if_needed()
    return box


def ready(tab, words="painted in"):
    tab.wait_for_function(
        "words => document.querySelector('.live [role=status]').textContent.includes(words)", arg=words, timeout=SLOW
    )


@pytest.mark.parametrize(("t", "label"), [(0, 3), (250, 8), (400, 10), (700, 0), (999, 10)])
def test_the_noise_prediction_is_that_of_pytorch(visit, trained, t, label):
    tab, clean = visit("book/index"), torch.rand(784, generator=seeded(1)) * 2 - 1
    question = {"clean": clean.tolist(), "t": t, "digit": label, "seed": 11}
    script = "../_static/vendor/" + pack_weights.PACKED.name
    found = {name: torch.tensor(x) for name, x in tab.evaluate(ASK, [script, "guess", question]).items()}
    step, eps = torch.tensor([t]), torch.randn(1, 1, 28, 28, generator=seeded(11))
    x = trained.diffusion.add_noise(clean.view(1, 1, 28, 28), step, eps)
    with torch.no_grad():
        v = trained.model(x, step, torch.tensor([label]))
    wanted = trained.diffusion.convert(v, x, step, "v")
    noise = trained.diffusion.convert(found["v"].view_as(x), x, step, "v").eps
    assert (found["x"] - x.flatten()).abs().max() < 1e-4, "the forward process, with PyTorch's noise of the seed"
    assert (noise - wanted.eps).abs().max() < 1e-3
    assert (found["start"] - wanted.x_start.clamp(-1, 1).flatten()).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("digit", "scale", "steps", "sampler", "seed"),
    [(3, 2, 25, "ddim", 0), (8, 1, 7, "ddim", 5), (0, 4.5, 25, "ddpm", 4294967295), (7, 3, 10, "dpm", 2)],
)
def test_a_painted_digit_is_that_of_pytorch(visit, trained, digit, scale, steps, sampler, seed):
    tab = visit("notebooks/16_dit")
    box = painter(tab)
    box.locator(f"input[name=digit][value='{digit}']").check(force=True)
    box.locator("[name=guidance]").fill(str(scale))
    box.locator("[name=steps]").fill(str(steps))
    box.locator("[name=sampler]").select_option(sampler)
    box.locator("[name=seed]").fill(str(seed))
    assert tab.evaluate("window.DIT === undefined"), "nothing is loaded before it is asked for"
    box.locator(".live-paint").click()
    ready(tab)
    wanted = painted(trained, digit, scale, steps, sampler, seed)
    for name in (".live-noisy", ".live-guess", ".live-film canvas:last-child"):
        found = torch.tensor(box.locator(name).evaluate(GREY))
        assert (found - wanted).abs().max() <= 0.51, name  # rounded to whole levels
    assert tab.outside == []
    assert tab.errors == []


@pytest.mark.parametrize("page", PAINTERS)
def test_the_painter_obeys_the_keyboard_and_says_what_it_shows(visit, page):
    tab = visit(page)
    box = painter(tab)
    status = box.locator("[role=status]")
    assert box.get_by_role("radio").count() == 10
    box.locator("[name=digit]:checked").focus()
    tab.keyboard.press("ArrowRight")
    stops = []
    for _ in range(5):
        tab.keyboard.press("Tab")
        stops.append(tab.evaluate("document.activeElement.name || document.activeElement.textContent"))
        if stops[-1] == "steps":
            tab.keyboard.press("Home")
    assert stops == ["guidance", "steps", "sampler", "seed", "Paint"]
    tab.keyboard.press("Enter")
    ready(tab)
    said = status.inner_text()
    assert said.startswith("A 4, painted in 2 steps of DDIM from seed 0 with guidance 2")
    assert box.locator(".live-noisy").get_attribute("aria-label") == "A 4, painted with guidance 2"
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    ready(tab, "from seed 1 ")
    assert tab.outside == []


def test_a_painting_can_be_stopped_and_waits_while_it_is_out_of_sight(visit):
    tab = visit("notebooks/16_dit")
    box = painter(tab)
    progress = box.locator("progress")
    box.locator("[name=steps]").fill("50")
    box.locator(".live-paint").click()
    tab.wait_for_function("document.querySelector('.live progress').value > 0.04", timeout=SLOW)
    tab.evaluate("scrollTo(0, 0)")
    ready(tab, "Out of sight: waiting at step")
    before = progress.evaluate("bar => bar.value")
    tab.wait_for_timeout(300)
    assert progress.evaluate("bar => bar.value") == before < 1
    painter(tab)
    tab.wait_for_function("at => document.querySelector('.live progress').value > at", arg=before, timeout=SLOW)
    box.locator(".live-paint").click()
    ready(tab, "Stopped")
    assert box.locator(".live-paint").inner_text() == "Paint"


@pytest.mark.parametrize(("motion", "most"), [("no-preference", 11), ("reduce", 1)])
def test_who_wants_less_motion_sees_the_result_only(visit, motion, most):
    tab = visit("book/index")
    tab.emulate_media(reduced_motion=motion)
    tab.evaluate("""() => {
        const put = CanvasRenderingContext2D.prototype.putImageData;
        window.drawn = 0;
        CanvasRenderingContext2D.prototype.putImageData = function (...data) {
            window.drawn += this.canvas.matches(".live-noisy");
            put.apply(this, data);
        };
    }""")
    box = painter(tab)
    box.locator("[name=steps]").fill("10")
    box.locator(".live-paint").click()
    ready(tab)
    assert tab.evaluate("window.drawn") == most


def drag(tab, way):
    tab.mouse.move(*way[0])
    tab.mouse.down()
    for place in way[1:]:
        tab.mouse.move(*place)
    tab.mouse.up()


def swipe(tab, way):
    finger = tab.context.new_cdp_session(tab)
    for k, (x, y) in enumerate(way):
        kind = "touchMove" if k else "touchStart"
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


@pytest.mark.parametrize("view", ["light", "phone"])
def test_a_drawn_digit_is_noised_and_guessed(visit, view):
    tab = visit("notebooks/10_ddpm", view)
    box = tab.locator("section.live:has(.live-drawn)")
    box.scroll_into_view_if_needed()
    paper, status = box.locator(".live-drawn"), box.locator("[role=status]")
    ink = lambda name=".live-drawn": torch.tensor(box.locator(name).evaluate(GREY)).view(28, 28)  # noqa: E731
    box.locator(".live-clear").click()
    assert ink().max() == 0
    place = paper.bounding_box()
    at = lambda x, y: (place["x"] + place["width"] * x, place["y"] + place["height"] * y)  # noqa: E731
    way, before = [at(0.5, 0.25 + 0.125 * k) for k in range(5)], tab.evaluate("scrollY")
    (swipe if view == "phone" else drag)(tab, way)
    drawn = ink()
    assert tab.evaluate("scrollY") == before, "a finger that draws does not scroll the page"
    assert drawn[8:20, 13:15].min() == 255, "a vertical stroke"
    assert drawn[:, :9].max() == drawn[:, 19:].max() == 0
    ready(tab, "t = 400")
    box.locator("[name=t]").focus()
    tab.keyboard.press("Home")
    ready(tab, "t = 0:")
    assert "x = 1.00 x₀" in status.inner_text()
    assert (ink(".live-noisy") - drawn).float().abs().mean() < 10
    assert (ink(".live-guess") - drawn).float().abs().mean() < 10
    paper.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight"):
        tab.keyboard.press(key)
    assert ink()[20:22, 15:18].min() > 200, "the arrow keys draw on"
    assert tab.evaluate("document.documentElement.scrollWidth") <= tab.viewport_size["width"]
    assert tab.outside == []
    assert tab.errors == []


@pytest.fixture(scope="module")
def paintings():
    """What the script of the gallery sets, with its image as numbers, (rows · 32, columns · 32, 3)."""
    text = draw_paintings.FILE.read_text(encoding="utf-8")
    about = json.loads(text.removeprefix("window.PAINTINGS = ").removesuffix(";\n"))
    file = io.BytesIO(base64.b64decode(about["image"].split(",")[1]))
    return about | {"image": np.array(Image.open(file).convert("RGB")).astype(int)}


def test_the_gallery_holds_what_the_model_paints(paintings):
    names, hands = draw_paintings.NAMES, len(paintings["hands"])
    assert paintings["names"] == list(names)
    assert paintings["image"].shape == (len(names) * hands * 32, (1 + 3 * 3) * 32, 3)
    true = draw_paintings.drawings()
    for row, (name, hand) in enumerate((name, hand) for name in names for hand in range(hands)):
        assert paintings["splits"][row] == (true[name, hand][0] if (name, hand) in true else "")
    few, column = paintings["image"][: 6 * 32], slice(5 * 32, 6 * 32)  # red apple; the second seed of 2.5
    wanted = (draw_paintings.paintings(names[:1], 2.5, 1) + 1) * 127.5
    found = torch.tensor(few[:, column]).view(6, 32, 32, 3).permute(0, 3, 1, 2)
    assert (found - wanted).abs().mean() < 6, "WebP keeps not every pixel"
    drawn = (torch.stack([true["red apple", hand][1] for hand in range(6)]) + 1) * 127.5
    found = torch.tensor(few[:, :32]).view(6, 32, 32, 3).permute(0, 3, 1, 2)
    assert (found - drawn).abs().mean() < 6


@pytest.mark.parametrize("view", ["light", "phone"])
def test_the_gallery_shows_what_is_chosen_and_says_it(visit, paintings, view):
    tab = visit(GALLERIES[0], view)
    assert tab.evaluate("window.PAINTINGS === undefined"), "nothing is loaded before it is near"
    box = tab.locator("section.live:has(.live-painted)")
    box.scroll_into_view_if_needed()
    ready(tab, "red apple, as noto would draw it, with guidance 4 from seed 0: training showed this drawing")
    box.locator("[name=names]").select_option("scissors")
    box.locator("[name=hands]").select_option("emojione")
    box.locator("[name=scales]").focus()
    tab.keyboard.press("ArrowUp")
    box.locator("[name=seeds]").select_option("2")
    said = "scissors, as emojione would draw it, with guidance 2.5 from seed 2: "
    ready(tab, said + "training showed this thing by other hands only")
    row = 32 * (6 * paintings["names"].index("scissors") + paintings["hands"].index("emojione"))
    pixels = "canvas => [...canvas.getContext('2d').getImageData(0, 0, 32, 32).data]"
    for name, column in ((".live-painted", 1 + 3 * 1 + 2), (".live-true", 0)):
        found = np.array(box.locator(name).evaluate(pixels)).reshape(32, 32, 4)[..., :3]
        wanted = paintings["image"][row : row + 32, 32 * column : 32 * column + 32]
        assert abs(found - wanted).max() <= 4, name  # of decoders
    assert box.locator(".live-painted").get_attribute("aria-label") == "scissors, as emojione would draw it"
    assert tab.evaluate("document.documentElement.scrollWidth") <= tab.viewport_size["width"]
    assert tab.outside == []
    assert tab.errors == []


def test_on_paper_the_picture_stands_without_what_can_be_pressed(visit):
    tab = visit("book/index")
    tab.emulate_media(media="print")
    box = painter(tab)
    assert box.locator("img").is_visible()
    assert not box.locator("form").is_visible()


@pytest.mark.parametrize("page", [*PAINTERS, *SKETCHES, *GALLERIES])
def test_without_javascript_a_figure_stands_there(browser, site, page):
    tab = browser.new_page(java_script_enabled=False)
    tab.goto((site / f"{page}.html").as_uri())
    assert tab.locator("section.live").count() == 0
    figure = tab.locator(":is([class*=tag_live-], .live-painter) img")
    assert figure.count() == 1
    assert figure.is_visible()
    assert len(figure.get_attribute("alt")) > 40
    tab.close()
