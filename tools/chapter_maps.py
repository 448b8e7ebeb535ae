"""The maps of the parts: which chapter builds on which."""

from diagram import Diagram

MAPS = (
    (
        {
            "01 RNN": (20, 90), "02 Attention": (170, 90), "03 Transformer": (320, 90),
            "04 BERT": (470, 20), "05 GPT": (470, 160), "06 RLHF": (615, 160),
        },
        [("01 RNN", "02 Attention"), ("02 Attention", "03 Transformer"), ("03 Transformer", "04 BERT"),
         ("03 Transformer", "05 GPT"), ("05 GPT", "06 RLHF")],
    ),
    (
        {
            "03 Transformer": (20, 90), "07 ViT": (220, 30), "08 CLIP": (420, 90),
            "09 DALL·E": (610, 150), "05 GPT": (420, 170),
        },
        [("03 Transformer", "07 ViT"), ("03 Transformer", "08 CLIP"), ("07 ViT", "08 CLIP"), ("08 CLIP", "09 DALL·E"),
         ("05 GPT", "09 DALL·E")],
    ),
    (
        {
            "10 DDPM": (20, 90), "11 ELBO": (220, 20), "12 Samplers": (220, 90),
            "15 Latents": (220, 160), "13 Editing": (420, 90), "14 unCLIP": (610, 90),
            "08 CLIP": (610, 15),
        },
        [("10 DDPM", "11 ELBO"), ("10 DDPM", "12 Samplers"), ("10 DDPM", "15 Latents"), ("12 Samplers", "13 Editing"),
         ("13 Editing", "14 unCLIP"), ("08 CLIP", "14 unCLIP")],
    ),
    (
        {
            "03 Transformer": (20, 20), "07 ViT": (20, 90), "15 Latents": (20, 160),
            "16 DiT": (220, 90), "17 Evaluation": (420, 30), "18 Scaling": (420, 150),
            "19 Text to image": (610, 90),
        },
        [("03 Transformer", "16 DiT"), ("07 ViT", "16 DiT"), ("15 Latents", "16 DiT"), ("16 DiT", "17 Evaluation"),
         ("16 DiT", "18 Scaling"), ("16 DiT", "19 Text to image")],
    ),
)  # fmt: skip


def chapter_map(part: int, boxes: dict[str, tuple[float, float]], arrows: list[tuple[str, str]]) -> Diagram:
    """Chapters as boxes at (x, y); an arrow leads to what builds on it."""
    d = Diagram(760, 230, f"Map of part {part}", "Chapters, with arrows to those that build on them.")
    for a, b in arrows:
        (xa, ya), (xb, yb) = boxes[a], boxes[b]
        if xb > xa:
            d.arrow((xa + 130, ya + 26), (xb, yb + 26))
        else:
            d.arrow((xa + 65, ya + 52 if yb > ya else ya), (xb + 65, yb if yb > ya else yb + 52))
    for name, (x, y) in boxes.items():
        d.box(x, y, 130, 52, name, "learned", 14)
    return d
