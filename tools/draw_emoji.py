"""Draw the emoji of six hands once, as `src/ditbook/data/emoji.parquet`: python tools/draw_emoji.py [OUT]

The drawings are SVGs in six npm packages. Needs `npm`, and `pip install resvg_py==0.5.0 emoji==2.16.0`, which nothing
else does. A few minutes, mostly for the gradients of Fluent.
"""

import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as Picture

OUT = Path(__file__).parents[1] / "src/ditbook/data/emoji.parquet"
DRAWN, SIDE = 128, 32  # pixels: drawn large, and reduced with antialiasing
FEWEST = 4  # hands that drew a thing
SKIN, KEYCAP = re.compile("1f3f[b-f]"), "20e3"
CLOCK = re.compile("o’clock|-thirty")
NUMBERS = re.compile(r"(svgID|SVG)\w+")  # of the gradients in an SVG, other ones in each
GROUPS = ("Smileys & Emotion", "People & Body", "Animals & Nature", "Food & Drink", "Travel & Places")
GROUPS += ("Activities", "Objects", "Symbols", "Flags")
HANDS = {  # name: npm package, license, author. Nothing share-alike.
    "noto": ("noto@1.2.9", "Apache-2.0", "Noto Emoji, Google Inc, https://github.com/googlefonts/noto-emoji"),
    "noto-v1": ("noto-v1@1.2.5", "Apache-2.0", "Noto Emoji, Google Inc, https://github.com/googlefonts/noto-emoji"),
    "twemoji": ("twemoji@1.2.5", "CC-BY-4.0", "Twemoji, Twitter and contributors, https://github.com/jdecked/twemoji"),
    "fluent": ("fluent-emoji@1.2.7", "MIT", "Fluent Emoji, Microsoft, https://github.com/microsoft/fluentui-emoji"),
    "fluent-flat": (
        *("fluent-emoji-flat@1.2.6", "MIT"),
        "Fluent Emoji, Microsoft, https://github.com/microsoft/fluentui-emoji",
    ),
    "emojione": ("emojione@1.2.3", "CC-BY-4.0", "EmojiOne 2.3, https://github.com/EmojiTwo/emojitwo"),
}


def fetch(package: str, folder: Path) -> dict[str, dict[str, Any]]:
    """The JSON files of an npm package, by name."""
    command = ["npm", "pack", "--silent", f"@iconify-json/{package}"]
    name = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.split()[-1]
    with tarfile.open(folder / name) as archive:
        files = {part: archive.extractfile(f"package/{part}.json") for part in ("icons", "chars", "metadata")}
        return {part: json.load(file) for part, file in files.items() if file}


def things() -> dict[str, str]:
    """Unicode's name of every emoji of one look, by its code points: {"1f34e": "red apple"}."""
    import emoji

    result = {}
    for text, row in emoji.EMOJI_DATA.items():
        points = key("-".join(f"{ord(sign):x}" for sign in text))
        name = row["en"].strip(":").replace("_", " ")
        if row["status"] == emoji.STATUS["fully_qualified"] and not (
            SKIN.search(points) or KEYCAP in points or CLOCK.search(name)
        ):
            result[points] = name
    return result


def key(points: str) -> str:
    """Code points without the one that only asks for the colored look."""
    return "-".join(point for point in points.lower().split("-") if point != "fe0f")


def code_points(sets: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Code points by the name of an icon. Three of the packages have such a table, all six use the same names."""
    result = {name: key(points) for files in sets.values() for points, name in files["chars"].items()}
    for files in sets.values():
        for alias, row in files["icons"].get("aliases", {}).items():
            if set(row) == {"parent"} and row["parent"] in result:
                result.setdefault(alias, result[row["parent"]])
    return result


def svg(icons: dict[str, Any], name: str) -> str:
    """The drawing of an icon, or of what it is another name or a mirror image of."""
    mirrored = False
    while name not in icons["icons"]:
        row = icons["aliases"][name]
        assert set(row) <= {"parent", "hFlip"}, row
        name, mirrored = row["parent"], mirrored != row.get("hFlip", False)
    icon = icons["icons"][name]
    left, top, width, height = (
        icon.get(side, icons.get(side, default))
        for side, default in {"left": 0, "top": 0, "width": 16, "height": 16}.items()
    )
    body = icon["body"]
    if mirrored:
        body = f'<g transform="translate({2 * left + width} 0) scale(-1 1)">{body}</g>'
    space = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    side = max(width, height)  # what is not square stands in the middle of a square
    return f'<svg {space} viewBox="{left - (side - width) / 2} {top - (side - height) / 2} {side} {side}">{body}</svg>'


def draw(drawing: str) -> bytes:
    """An SVG as a lossless WebP of 32×32 pixels on white."""
    import resvg_py

    png = bytes(resvg_py.svg_to_bytes(svg_string=drawing, width=DRAWN, height=DRAWN))
    image = Picture.open(io.BytesIO(png)).convert("RGBA")
    assert image.size == (DRAWN, DRAWN), image.size
    white = Picture.new("RGBA", image.size, "white")
    small = Picture.alpha_composite(white, image).convert("RGB").resize((SIDE, SIDE), Picture.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", lossless=True, quality=100, method=6)
    return buffer.getvalue()


def drawings(icons: dict[str, Any], points_of: dict[str, str], wanted: dict[str, str]) -> dict[str, str]:
    """One hand's SVGs by code points. A drawing that it uses for two things counts for the one of the shorter name."""
    found: dict[str, str] = {}
    for icon in [*icons["icons"], *icons.get("aliases", {})]:
        if (points := points_of.get(icon)) in wanted:
            found.setdefault(points, svg(icons, icon))
    shortest: dict[str, str] = {}
    for points in sorted(found, key=lambda points: (len(wanted[points]), wanted[points])):
        shortest.setdefault(NUMBERS.sub("", found[points]), points)
    return {points: found[points] for points in shortest.values()}


def main(out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sets = {hand: fetch(package, Path(folder)) for hand, (package, *_) in HANDS.items()}
    points_of, wanted = code_points(sets), things()
    found = {hand: drawings(files["icons"], points_of, wanted) for hand, files in sets.items()}
    hands = Counter(points for of_hand in found.values() for points in of_hand)
    groups = sets["noto"]["metadata"]["categories"]
    group_of = {points_of[icon]: group for group, icons in groups.items() for icon in icons if icon in points_of}
    rows = [
        {
            "image": {"bytes": draw(found[hand][points]), "path": None},
            "caption": wanted[points],
            "hand": hand,
            "group": group_of[points],
            "thing": points,
        }
        for points in sorted((points for points in hands if hands[points] >= FEWEST), key=lambda points: wanted[points])
        for hand in found
        if points in found[hand]
    ]
    features = {"image": Image(), "caption": Value("string"), "hand": ClassLabel(names=list(HANDS))}
    features |= {"group": ClassLabel(names=list(GROUPS)), "thing": Value("string")}
    table = Dataset.from_list(rows, features=Features(features)).data.table
    licenses = {
        hand: {"package": f"@iconify-json/{row[0]}", "license": row[1], "author": row[2]} for hand, row in HANDS.items()
    }
    table = table.replace_schema_metadata({**table.schema.metadata, "licenses": json.dumps(licenses)})
    pyarrow.parquet.write_table(table, out, compression="zstd")
    print(len(rows), "images of", len({row["thing"] for row in rows}), "things;", out.stat().st_size, "bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else OUT)
