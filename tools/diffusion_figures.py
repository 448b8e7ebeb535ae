"""The figures of parts III and IV: diffusion, and the models that it trains."""

from diagram import Diagram


def diffusion_chain() -> Diagram:
    d = Diagram(760, 220, "The diffusion chain", "A fixed process adds noise step by step; a learned one goes back.")
    for x, words in ((20, "x₀"), (200, "x₁"), (430, "xₜ"), (650, "xᴛ")):
        d.box(x, 85, 90, 50, words, "data", 17)
    for a, b in ((110, 200), (290, 430), (520, 650)):
        d.arrow((a + 4, 98), (b - 4, 98))
        d.arrow((b - 4, 122), (a + 4, 122))
    d.text(360, 90, "…", 17)
    d.text(585, 90, "…", 17)
    d.box(255, 20, 250, 40, "q: add a little noise (fixed)", "fixed")
    d.box(255, 160, 250, 40, "p: take it away again (learned)", "learned")
    d.text(65, 160, "picture", 14)
    d.text(695, 160, "noise", 14)
    return d


def unet() -> Diagram:
    d = Diagram(760, 380, "U-Net", "Down to coarse resolution, up again, with connections across at each level.")
    for k, (words, y) in enumerate((("32 × 32", 60), ("16 × 16", 150), ("8 × 8", 240))):
        d.box(110 + 70 * k, y, 120, 50, words, "learned")
        d.box(530 - 70 * k, y, 120, 50, words, "learned")
        d.arrow((230 + 70 * k, y + 25), (530 - 70 * k, y + 25))
        if k:
            d.arrow((140 + 70 * k, y - 40), (140 + 70 * k, y))
            d.arrow((620 - 70 * k, y), (620 - 70 * k, y - 40))
    d.box(320, 315, 120, 46, "middle", "learned")
    d.arrow((290, 290), (290, 338), (320, 338))
    d.arrow((440, 338), (470, 338), (470, 290))
    d.box(15, 62, 70, 46, "xₜ", "data")
    d.box(675, 62, 70, 46, "ε", "data")
    d.arrow((85, 85), (110, 85))
    d.arrow((650, 85), (675, 85))
    d.box(15, 300, 160, 46, "timestep, to all", "told")
    d.text(380, 70, "features are handed across", 14)
    d.text(150, 225, "down", 14)
    d.text(620, 225, "up", 14)
    return d


def latent_diffusion() -> Diagram:
    d = Diagram(
        760, 300, "Latent diffusion", "An encoder shrinks pictures; diffusion works on latents; a decoder paints."
    )
    d.box(20, 50, 100, 50, "picture x", "data")
    d.box(165, 50, 110, 50, "encoder", "learned")
    d.box(320, 50, 90, 50, "latent z", "data")
    d.box(455, 50, 110, 50, "add noise", "fixed")
    d.box(620, 50, 110, 50, "noisy zₜ", "data")
    d.box(500, 180, 230, 60, "Diffusion Transformer,\nstep after step", "learned")
    d.box(345, 185, 90, 50, "z₀ / s", "data")
    d.box(180, 185, 110, 50, "decoder", "learned")
    d.box(20, 185, 110, 50, "painted", "data")
    d.box(500, 258, 230, 32, "timestep, class or text", "told", 14)
    for a, b in ((120, 165), (275, 320), (410, 455), (565, 620)):
        d.arrow((a, 75), (b, 75))
    d.arrow((675, 100), (675, 180))
    for a, b in ((500, 435), (345, 290), (180, 130)):
        d.arrow((a, 210), (b, 210))
    d.arrow((615, 258), (615, 240))
    d.text(220, 122, "trained once, then fixed", 14)
    return d


def dit() -> Diagram:
    d = Diagram(
        760,
        330,
        "Diffusion Transformer",
        "A noisy latent becomes tokens, passes blocks, and becomes noise and variance.",
    )
    d.box(15, 70, 90, 60, "noisy\nlatent", "data")
    d.box(140, 70, 100, 60, "patchify,\n+ positions", "learned", 14)
    for k in range(3):
        d.box(286 + 8 * k, 54 + 8 * k, 150, 70, "DiT block\nN times", "learned")
    d.box(490, 70, 100, 60, "final layer", "learned")
    d.box(625, 35, 120, 46, "noise ε", "data")
    d.box(625, 120, 120, 46, "variance v", "data")
    d.arrow((105, 100), (140, 100))
    d.arrow((240, 100), (286, 100))
    d.arrow((452, 100), (490, 100))
    d.arrow((590, 90), (625, 60))
    d.arrow((590, 110), (625, 140))
    d.box(60, 200, 110, 46, "timestep t", "told")
    d.box(60, 265, 110, 46, "class y", "told")
    d.dot(250, 255, "+")
    d.arrow((170, 223), (239, 249))
    d.arrow((170, 288), (239, 262))
    d.arrow((263, 255), (370, 255), (370, 142))
    d.arrow((370, 255), (540, 255), (540, 130))
    d.text(560, 285, "the sum sets shift, scale and gate of each block", 14)
    return d


def dit_blocks() -> Diagram:
    d = Diagram(760, 470, "Four DiT blocks", "In-context, cross-attention, adaLN and adaLN-Zero.")
    designs = {
        "in-context": ["norm", "attention", "norm", "MLP"],
        "cross-attention": ["norm", "attention", "norm", "cross-attention", "norm", "MLP"],
        "adaLN": ["shift, scale", "attention", "shift, scale", "MLP"],
        "adaLN-Zero": ["shift, scale", "attention", "gate, from 0", "shift, scale", "MLP", "gate, from 0"],
    }
    for k, (name, parts) in enumerate(designs.items()):
        x = 20 + 185 * k
        d.text(x + 80, 26, name, 15, weight="600")
        if name == "in-context":
            d.box(x, 410, 75, 40, "tokens", "data", 14)
            d.box(x + 85, 410, 75, 40, "t, y", "told", 14)
            d.arrow((x + 122, 410), (x + 110, 390))
            d.arrow((x + 38, 410), (x + 60, 390))
        else:
            d.box(x + 25, 410, 110, 40, "tokens", "data", 14)
            d.arrow((x + 80, 410), (x + 80, 390))
        for j, part in enumerate(parts):
            y = 350 - 58 * j
            kind = "told" if part in ("shift, scale", "gate, from 0", "cross-attention") else "learned"
            d.box(x + 5, y, 150, 38, part, "fixed" if part == "norm" else kind, 14)
            if j:
                d.arrow((x + 80, y + 58), (x + 80, y + 40))
    return d


def upsampler() -> Diagram:
    d = Diagram(
        760, 250, "Upsampler", "A small picture with noise, enlarged, beside the noisy one; a U-Net adds detail."
    )
    d.box(15, 30, 110, 50, "noisy\npicture", "data", 14)
    d.box(15, 120, 110, 50, "small\npicture", "told", 14)
    d.box(165, 120, 110, 50, "noise of\nlevel s", "fixed", 14)
    d.box(315, 120, 110, 50, "enlarge", "fixed", 14)
    d.box(470, 30, 130, 50, "U-Net", "learned")
    d.dot(650, 55, "+")
    d.box(690, 30, 60, 50, "clean\npicture", "data", 12)
    d.box(165, 195, 110, 40, "levels t, s", "told", 14)
    d.arrow((125, 55), (470, 55))
    d.arrow((125, 145), (165, 145))
    d.arrow((275, 145), (315, 145))
    d.arrow((370, 120), (370, 68), (470, 68))
    d.arrow((425, 145), (650, 145), (650, 67))
    d.arrow((275, 215), (535, 215), (535, 80))
    d.arrow((600, 55), (638, 55))
    d.arrow((662, 55), (690, 55))
    return d


FIGURES = {
    "diffusion-chain": diffusion_chain,
    "unet": unet,
    "upsampler": upsampler,
    "latent-diffusion": latent_diffusion,
    "dit": dit,
    "dit-blocks": dit_blocks,
}
