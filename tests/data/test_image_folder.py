import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ditbook.data import tensors, user_images


def save(path: Path, grey: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), grey).save(path)


def describe(folder: Path, *rows: dict) -> None:
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_subfolders_are_classes(tmp_path):
    save(tmp_path / "dog" / "b.PNG", 3)
    save(tmp_path / "dog" / "a.png", 2)
    save(tmp_path / "cat" / "deep" / "c.jpg", 1)
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    dataset = user_images.load(tmp_path)
    assert dataset.features["label"].names == ["cat", "dog"]
    assert dataset["label"] == [0, 1, 1]
    assert [image.getpixel((0, 0)) for image in dataset["image"]] == [1, 2, 3]
    assert tensors(user_images.load(str(tmp_path)))["image"].shape == (3, 1, 4, 4)


def test_images_alone_have_no_label(tmp_path):
    save(tmp_path / "a.png", 1)
    assert user_images.load(tmp_path).column_names == ["image"]


def test_the_subfolder_of_the_split_is_taken(tmp_path):
    save(tmp_path / "train" / "cat" / "a.png", 1)
    save(tmp_path / "test" / "cat" / "a.png", 9)
    assert user_images.load(tmp_path)[0]["image"].getpixel((0, 0)) == 1
    assert user_images.load(tmp_path, split="test")[0]["image"].getpixel((0, 0)) == 9
    with pytest.raises(ValueError, match="no subfolder 'validation'"):
        user_images.load(tmp_path, split="validation")


def test_a_folder_without_splits_is_train_only(tmp_path):
    save(tmp_path / "cat" / "a.png", 1)
    with pytest.raises(ValueError, match="no subfolder 'test'"):
        user_images.load(tmp_path, split="test")


@pytest.mark.parametrize("keep", [0, 0.02, 0.5])
def test_a_corrupt_image_is_named_with_its_path(tmp_path, keep):
    save(tmp_path / "cat" / "good.png", 1)
    bad = tmp_path / "cat" / "bad.png"
    noise = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    Image.fromarray(noise).save(bad)
    bad.write_bytes(bad.read_bytes()[: int(keep * bad.stat().st_size)])
    with pytest.raises(ValueError, match="is not a readable image") as caught:
        user_images.load(tmp_path)
    assert str(bad) in str(caught.value)


def test_empty_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is empty"):
        user_images.load(tmp_path)
    save(tmp_path / "cat" / "a.png", 1)
    (tmp_path / "dog").mkdir()
    with pytest.raises(ValueError, match="dog is empty: each subfolder is a class"):
        user_images.load(tmp_path)


def test_images_beside_classes_are_refused(tmp_path):
    save(tmp_path / "a.png", 1)
    save(tmp_path / "cat" / "b.png", 1)
    with pytest.raises(ValueError, match=r"a\.png.*beside subfolders.*cat"):
        user_images.load(tmp_path)


def test_a_missing_folder_and_a_foreign_file_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*absent"):
        user_images.load(str(tmp_path / "absent"))
    save(tmp_path / "a.png", 1)
    with pytest.raises(ValueError, match="is a file; expected a folder"):
        user_images.load(tmp_path / "a.png")


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
        with pytest.raises(ValueError, match=r"b\.png has no line in metadata\.jsonl: describe all images or none"):
            user_images.load(tmp_path)
        describe(tmp_path, *({"file_name": f"{name}.png", "text": name} for name in "abc"))
        with pytest.raises(ValueError, match=r"metadata\.jsonl describes .*c\.png, which is no image of the folder"):
            user_images.load(tmp_path)

    @pytest.mark.parametrize("line", ["{", '{"text": "a"}', "[]", '{"file_name": 3}'])
    def test_a_bad_line_is_named(self, tmp_path, line):
        save(tmp_path / "a.png", 1)
        (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png"}\n\n' + line + "\n")
        with pytest.raises(ValueError, match=r"metadata\.jsonl, line 3: expected JSON with a `file_name`"):
            user_images.load(tmp_path)

    def test_other_metadata_are_not_passed_over_in_silence(self, tmp_path):
        save(tmp_path / "a.png", 1)
        (tmp_path / "metadata.csv").write_text("file_name,text\na.png,a\n")
        with pytest.raises(ValueError, match=r"metadata\.csv is not read: write it as metadata\.jsonl"):
            user_images.load(tmp_path)
