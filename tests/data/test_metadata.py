import csv
import json
from pathlib import Path

import pyarrow.parquet
import pytest
from PIL import Image

from ditbook.data import user_images


def save(path: Path, grey: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), grey).save(path)


def describe(folder: Path, *rows: dict) -> None:
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write(file: Path, rows: list[dict], encoding: str = "utf-8") -> None:
    """The rows as JSON lines, CSV or parquet, by the file's name."""
    if file.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
        return
    with file.open("w", encoding=encoding, newline="") as out:
        if file.suffix == ".csv":
            table = csv.DictWriter(out, rows[0])
            table.writeheader()
            table.writerows(rows)
        else:
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def pairs(dataset) -> list[tuple]:
    return [(row["image"].getpixel((0, 0)), row["caption"]) for row in dataset]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.jsonl", '{"file_name": "a.png", "text": "é"}', ", line 1: not UTF-8 .*; save the file in UTF-8"),
        ("metadata.csv", "file_name,text\na.png,é", ", line 2: not UTF-8 "),
        ("a.txt", "one\né", ", line 2: not UTF-8 "),
        ("metadata.parquet", "PAR1 and no more", " is not a readable parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content, message):
    save(tmp_path / "a.png", 1)
    (tmp_path / name).write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=name + message):
        user_images.load(tmp_path)


class TestMetadata:
    def test_text_becomes_the_caption_of_its_image(self, tmp_path):
        for name in ("a", "b", "c"):
            save(tmp_path / f"{name}.png", ord(name))
        describe(tmp_path, *({"file_name": f"{name}.png", "text": f"É {name}", "source": 1} for name in "bca"))
        dataset = user_images.load(tmp_path)
        assert dataset.column_names == ["image", "caption"]
        assert [(row["image"].getpixel((0, 0)), row["caption"]) for row in dataset] == [
            (97, "É a"),
            (98, "É b"),
            (99, "É c"),
        ]

    def test_lists_of_captions_stay_lists(self, tmp_path):
        for name in ("a", "b"):
            save(tmp_path / f"{name}.png", 1)
        describe(
            tmp_path, {"file_name": "a.png", "sentences": ["one", "two"]}, {"file_name": "b.png", "sentences": "three"}
        )
        assert list(user_images.load(tmp_path)["caption"]) == [["one", "two"], ["three"]]

    def test_labels_are_those_of_the_metadata_and_not_the_folders(self, tmp_path):
        save(tmp_path / "train" / "part 1" / "a.png", 1)
        save(tmp_path / "train" / "part 2" / "b.png", 2)
        describe(
            tmp_path / "train",
            {"file_name": "part 1/a.png", "label": "owl"},
            {"file_name": "part 2/b.png", "label": "cat"},
        )
        dataset = user_images.load(tmp_path)
        assert dataset.features["label"].names == ["cat", "owl"]
        assert list(dataset["label"]) == [1, 0]
        describe(tmp_path / "train", {"file_name": "part 1/a.png"}, {"file_name": "part 2/b.png"})
        assert user_images.load(tmp_path).column_names == ["image"]

    def test_images_and_lines_must_match(self, tmp_path):
        save(tmp_path / "a.png", 1)
        save(tmp_path / "b.png", 1)
        describe(tmp_path, {"file_name": "a.png", "text": "a"})
        with pytest.raises(ValueError, match=r"b\.png has no row in .*metadata\.jsonl: describe all images or none"):
            user_images.load(tmp_path)
        describe(tmp_path, *({"file_name": f"{name}.png", "text": name} for name in "abc"))
        with pytest.raises(
            ValueError, match=r"metadata\.jsonl, line 3: the folder has no image .*c\.png; `file_name` is"
        ):
            user_images.load(tmp_path)
        describe(tmp_path, *({"file_name": f"{name}.png", "text": name} for name in "aba"))
        with pytest.raises(
            ValueError, match=r"jsonl, line 3: a\.png has a row already, .*jsonl, line 1; .* a list where"
        ):
            user_images.load(tmp_path)
        outside = tmp_path.parent / "outside.png"
        save(outside, 1)
        describe(tmp_path, *({"file_name": name, "text": name} for name in ("a.png", "b.png", "../outside.png")))
        with pytest.raises(ValueError, match=r"line 3: the folder has no image .*outside\.png"):
            user_images.load(tmp_path)

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("{", r"no JSON \(Expecting .*\); expected a line as {\"file_name\": \"a\.png\""),
            ('{"text": "a"}', "expected a `file_name`, an image's path relative to this file; found {'text': 'a'}"),
            ("[]", r"\[\] is no object; expected a line as"),
            ('{"file_name": 3}', "expected a `file_name`, .*; found {'file_name': 3}"),
        ],
    )
    def test_a_bad_line_is_named(self, tmp_path, line, message):
        save(tmp_path / "a.png", 1)
        (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png"}\n\n' + line + "\n")
        with pytest.raises(ValueError, match=r"metadata\.jsonl, line 3: " + message):
            user_images.load(tmp_path)

    @pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "metadata.parquet"])
    def test_metadata_above_the_splits_are_of_all_of_them(self, tmp_path, name):
        for k, part in enumerate(("train/a", "train/deep/b", "test/c")):
            save(tmp_path / f"{part}.png", k)
        rows = [{"file_name": f"{part}.png", "text": part[-1]} for part in ("test/c", "train/deep/b", "train/a")]
        write(tmp_path / name, rows)
        assert pairs(user_images.load(tmp_path)) == [(0, "a"), (1, "b")]
        assert pairs(user_images.load(tmp_path, "test")) == [(2, "c")]
        write(tmp_path / name, [*rows, {"file_name": "test/d.png", "text": "d"}])
        with pytest.raises(ValueError, match=rf"{name}, (line|row) \d: the folder has no image .*test/d\.png"):
            user_images.load(tmp_path)

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
    @pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
    def test_a_byte_order_mark_and_separators_of_lines_are_no_fault(self, tmp_path, name, encoding):
        said = "one\u2028two\x85three, é"
        save(tmp_path / "a.png", 1)
        write(tmp_path / name, [{"file_name": "a.png", "text": said}], encoding=encoding)
        assert user_images.load(tmp_path)["caption"] == [said]

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"label": ["owl", 3]}, r"`label` is 3; expected a word in each row or a whole .* line 1 has 'owl'"),
            ({"label": [3, None]}, "`label` is None; expected a word in each row or a whole number"),
            ({"label": [True, False]}, "`label` is True; expected a word"),
            ({"label": ["owl", ""]}, "`label` is ''; expected a word"),
            ({"text": ["owl", 3]}, "`text` is 3; expected a string or a list of strings in each row"),
            ({"text": ["owl", None]}, "`text` is None; expected a string"),
            ({"text": [["owl"], [3]]}, r"`text` is \[3\]; expected a string"),
            ({"text": [["owl"], []]}, r"`text` is \[\]; expected a string"),
        ],
    )
    def test_values_of_mixed_types_are_named(self, tmp_path, values, message):
        (column, pair) = next(iter(values.items()))
        for name in "ab":
            save(tmp_path / f"{name}.png", 1)
        write(
            tmp_path / "metadata.jsonl", [{"file_name": f"{n}.png", column: v} for n, v in zip("ab", pair, strict=True)]
        )
        with pytest.raises(ValueError, match=r"metadata\.jsonl, line [12]: " + message):
            user_images.load(tmp_path)

    def test_mixed_types_do_not_matter_where_they_are_dropped(self, tmp_path, caplog):
        for name in "ab":
            save(tmp_path / f"{name}.png", 1)
        rows = [{"file_name": "a.png", "source": 1, "story": "a"}, {"file_name": "b.png", "source": "two"}]
        write(tmp_path / "metadata.jsonl", rows)
        assert user_images.load(tmp_path).column_names == ["image"]
        assert caplog.messages[0].startswith("columns kept: `file_name`; dropped: `source`, `story`; a caption must be")

    def test_two_columns_of_captions_are_named_with_their_file(self, tmp_path):
        save(tmp_path / "a.png", 1)
        write(tmp_path / "metadata.jsonl", [{"file_name": "a.png", "text": "a", "sentence": "b"}])
        with pytest.raises(
            ValueError, match=r"metadata\.jsonl, line 1 and others: the caption could be any of text, sentence"
        ):
            user_images.load(tmp_path)

    def test_numbers_of_a_table_are_labels(self, tmp_path):
        for name in "abc":
            save(tmp_path / f"{name}.png", 1)
        rows = [{"file_name": f"{name}.png", "label": label} for name, label in (("a", 10), ("b", 9), ("c", 10))]
        write(tmp_path / "metadata.csv", rows)
        assert user_images.load(tmp_path)["label"] == [10, 9, 10]
        write(tmp_path / "metadata.csv", [*rows[:2], {"file_name": "c.png", "label": "ten"}])
        assert user_images.load(tmp_path).features["label"].names == ["10", "9", "ten"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("file_name,text\na.png,a cat, asleep", "line 2: as many fields .* names, 2, .* in quotes"),
            ("file_name,text\n\na.png", "line 3: as many fields .* names, 2, .* in quotes"),
            ('file_name,text\na.png,"a" cat', "line 2: ',' expected after"),
            ("file_name,label\na.png, ", "line 2: `label` is ' '; expected a word in each row or a whole number"),
            ("file_name;text\na.png;a cat, asleep", "line 1: .* semicolons, 'file_name;text'; commas are expected"),
        ],
    )
    def test_the_line_of_a_table_that_cannot_be_read_is_named(self, tmp_path, text, message):
        save(tmp_path / "a.png", 1)
        (tmp_path / "metadata.csv").write_text(text)
        with pytest.raises(ValueError, match=rf"metadata\.csv, {message}"):
            user_images.load(tmp_path)

    @pytest.mark.parametrize(("stored", "written"), [("e\u0301", "é"), ("é", "e\u0301")])
    def test_forms_of_accents_and_capitals_in_suffixes_do_not_matter(self, tmp_path, stored, written):
        for name in (f"train/{stored}.PNG", f"test/{stored}.png"):
            save(tmp_path / name, 1)
        rows = [{"file_name": f"{split}/{written}.png", "text": split} for split in ("train", "test")]
        write(tmp_path / "metadata.csv", rows)
        (tmp_path / "metadata.csv").rename(tmp_path / "METADATA.CSV")
        assert pairs(user_images.load(tmp_path)) == [(1, "train")]


class TestTextFiles:
    """Captions in `a.txt` beside `a.png`."""

    def test_a_text_beside_each_image_is_its_caption(self, tmp_path):
        for name in "abc":
            save(tmp_path / f"{name}.png", ord(name))
        for name, said in (("a", "É one\u2028still one\n"), ("b", "\ufefftwo\r\n"), ("c", "")):
            (tmp_path / f"{name}.txt").write_text(said, encoding="utf-8", newline="")
        for streaming in (False, True):
            dataset = user_images.load(tmp_path, streaming=streaming)
            assert dataset.column_names == ["image", "caption"]
            assert pairs(dataset) == [(97, "É one\u2028still one"), (98, "two"), (99, "")]

    def test_capitals_in_suffixes_and_forms_of_accents_do_not_matter(self, tmp_path):
        save(tmp_path / "é.JPG", 1)
        (tmp_path / "e\u0301.TXT").write_text("one")
        assert user_images.load(tmp_path)["caption"] == ["one"]

    def test_each_line_is_a_caption(self, tmp_path):
        for name, said in (("a", "one\n\n two \n"), ("b", "three")):
            save(tmp_path / f"{name}.jpg", 1)
            (tmp_path / f"{name}.caption").write_text(said)
        assert list(user_images.load(tmp_path)["caption"]) == [["one", "two"], ["three"]]

    def test_labels_of_subfolders_and_of_metadata_stay(self, tmp_path):
        for name in ("cat/a", "dog/b"):
            save(tmp_path / f"{name}.png", 1)
            (tmp_path / f"{name}.txt").write_text(f"a {name}")
        dataset = user_images.load(tmp_path)
        assert (list(dataset["label"]), list(dataset["caption"])) == ([0, 1], ["a cat/a", "a dog/b"])
        write(tmp_path / "metadata.jsonl", [{"file_name": f"{n}.png", "label": 7} for n in ("cat/a", "dog/b")])
        dataset = user_images.load(tmp_path)
        assert (list(dataset["label"]), list(dataset["caption"])) == ([7, 7], ["a cat/a", "a dog/b"])
        write(tmp_path / "metadata.jsonl", [{"file_name": f"{n}.png", "text": "a"} for n in ("cat/a", "dog/b")])
        with pytest.raises(ValueError, match=r"metadata\.jsonl and .*a\.txt both hold captions"):
            user_images.load(tmp_path)

    def test_an_image_without_a_caption_or_with_two_is_named(self, tmp_path):
        for name in "ab":
            save(tmp_path / f"{name}.png", 1)
        (tmp_path / "a.txt").write_text("one")
        with pytest.raises(ValueError, match=r"b\.png has no caption, others have one file, .* describe all images or"):
            user_images.load(tmp_path)
        for name in ("b.txt", "b.caption"):
            (tmp_path / name).write_text("two")
        with pytest.raises(ValueError, match=r"b\.png has 2 files of captions"):
            user_images.load(tmp_path)

    def test_a_name_of_two_points_keeps_its_capitals(self, tmp_path):
        for name in ("b.A", "b.a"):
            save(tmp_path / f"{name}.png", 1)
            (tmp_path / f"{name}.txt").write_text(name)
        assert sorted(user_images.load(tmp_path)["caption"]) == ["b.A", "b.a"]

    def test_two_images_that_a_row_cannot_tell_apart(self, tmp_path):
        for name in ("a.PNG", "a.png"):
            save(tmp_path / name, 1)
        (tmp_path / "metadata.csv").write_text("file_name,text\na.png,one\n")
        with pytest.raises(ValueError, match=r"a\.PNG and .*a\.png differ in the suffix's capitals or in forms of acc"):
            user_images.load(tmp_path)

    def test_a_split_that_is_a_link_to_another(self, tmp_path):
        save(tmp_path / "validation" / "a.png", 1)
        (tmp_path / "test").symlink_to(tmp_path / "validation")
        (tmp_path / "metadata.csv").write_text("file_name,text\nvalidation/a.png,one\ntest/a.png,two\n")
        for split, caption in (("validation", "one"), ("test", "two")):
            assert list(user_images.load(tmp_path, split)["caption"]) == [caption]

    def test_files_that_belong_to_no_image_are_not_passed_over_in_silence(self, tmp_path, caplog):
        save(tmp_path / "train" / "a.png", 1)
        (tmp_path / "train" / "a.txt").write_text("one")
        user_images.load(tmp_path)
        assert not caplog.messages
        for name in ("captions.json", "train/b.txt", "train/.hidden.txt", "train/notes.md"):
            (tmp_path / name).write_text("{}")
        user_images.load(tmp_path)
        (message,) = caplog.messages
        assert message.startswith("2 files that belong to no image are not read: ")
        assert "captions.json" in message
        assert "b.txt" in message
