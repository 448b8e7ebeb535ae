"""The figures of part II: models of images and words."""

from diagram import Diagram


def vit() -> Diagram:
    d = Diagram(
        760, 260, "Vision Transformer", "An image becomes patches, tokens, an encoded class token, and a class."
    )
    for row in range(3):
        for column in range(3):
            d.box(20 + 34 * column, 60 + 34 * row, 30, 30, "", "data")
    d.text(70, 190, "patches", 14)
    d.box(165, 80, 110, 60, "linear map", "learned")
    d.box(320, 30, 100, 36, "class token", "learned", 14)
    d.box(320, 160, 100, 36, "positions", "learned", 14)
    d.dot(370, 110, "+")
    d.box(470, 70, 120, 80, "Transformer\nencoder", "learned")
    d.box(640, 85, 100, 50, "class", "data")
    d.arrow((124, 110), (165, 110))
    d.arrow((275, 110), (357, 110))
    d.arrow((370, 66), (370, 97))
    d.arrow((370, 160), (370, 123))
    d.arrow((383, 110), (470, 110))
    d.arrow((590, 110), (640, 110))
    d.text(380, 232, "T = (I / p)² patches and one class token; the class is read from the latter", 14)
    return d


def clip() -> Diagram:
    d = Diagram(
        760, 340, "CLIP", "Pictures and texts become vectors; the table of their products is bright on the diagonal."
    )
    d.box(20, 130, 110, 50, "pictures", "data")
    d.box(180, 120, 130, 70, "image\nencoder", "learned")
    d.box(400, 20, 90, 40, "texts", "data")
    d.box(540, 15, 150, 50, "text encoder", "learned")
    d.arrow((130, 155), (180, 155))
    d.arrow((490, 40), (540, 40))
    for row in range(4):
        for column in range(4):
            kind = "learned" if row == column else "fixed"
            d.box(400 + 80 * column, 110 + 50 * row, 74, 44, f"u{row + 1} · v{column + 1}", kind, 14)
    d.arrow((310, 155), (350, 155), (350, 207), (396, 207))
    d.arrow((615, 65), (615, 106))
    d.text(190, 255, "cosines, times a learned scale;\nthe diagonal is right,\nall else is wrong", 14)
    return d


def dalle() -> Diagram:
    d = Diagram(760, 300, "DALL·E", "Words and the tokens of an image in one sequence, in two orders.")
    d.box(20, 40, 90, 44, "image", "data")
    d.box(160, 40, 110, 44, "encoder", "learned")
    d.box(320, 40, 130, 44, "nearest code", "learned", 14)
    d.box(500, 40, 110, 44, "decoder", "learned")
    d.box(660, 40, 80, 44, "image", "data")
    d.arrow((110, 62), (160, 62))
    d.arrow((270, 62), (320, 62))
    d.arrow((450, 62), (500, 62))
    d.arrow((610, 62), (660, 62))
    d.arrow((385, 84), (385, 132))
    for y, parts in ((132, ("text", "image tokens")), (186, ("image tokens", "text"))):
        x = 250
        for part in parts:
            width = 90 if part == "text" else 190
            d.box(x, y, width, 40, part, "told" if part == "text" else "data", 14)
            x += width + 10
    d.text(150, 156, "draw", 14)
    d.text(150, 210, "say", 14)
    d.box(250, 240, 290, 40, "one Transformer, causal", "learned", 14)
    d.text(650, 190, "the text: a caption,\nor a question\nand its answer", 14)
    return d


def unclip() -> Diagram:
    d = Diagram(
        760,
        250,
        "unCLIP",
        "A caption becomes CLIP's vector of a picture by the prior, a latent by the decoder, pixels.",
    )
    d.box(20, 90, 100, 50, "caption", "data")
    d.box(20, 20, 150, 46, "CLIP's text encoder", "fixed", 14)
    d.box(200, 80, 120, 70, "prior", "learned")
    d.box(360, 90, 110, 50, "vector of\na picture", "data", 14)
    d.box(510, 80, 110, 70, "decoder", "learned")
    d.box(650, 90, 90, 50, "32×32", "data")
    d.box(500, 180, 130, 50, "upsampler", "learned")
    d.box(360, 180, 90, 50, "64×64", "data")
    d.arrow((120, 115), (200, 115))
    d.arrow((70, 90), (70, 66))
    d.arrow((170, 43), (260, 43), (260, 80))
    d.arrow((320, 115), (360, 115))
    d.arrow((470, 115), (510, 115))
    d.arrow((620, 115), (650, 115))
    d.arrow((695, 140), (695, 205), (630, 205))
    d.arrow((500, 205), (450, 205))
    return d


FIGURES = {"vit": vit, "clip": clip, "dalle": dalle, "unclip": unclip}
