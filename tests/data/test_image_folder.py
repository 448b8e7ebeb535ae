from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ditbook.data import tensors, user_images


def save(path: Path, grey: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), grey).save(path)


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


def test_what_is_hidden_is_passed_over(tmp_path):
    for name in ("cat/a", "cat/.ipynb_checkpoints/a-checkpoint", "cat/._a"):
        save(tmp_path / f"{name}.png", 1)
    assert len(user_images.load(tmp_path)) == 1


def test_a_folder_that_is_a_link_is_a_class(tmp_path):
    save(tmp_path / "elsewhere" / "a.png", 1)
    save(tmp_path / "data" / "cat" / "b.png", 2)
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "elsewhere")
    assert list(user_images.load(tmp_path / "data")["label"]) == [0, 1]


def test_links_to_a_folder_around_them_are_not_followed(tmp_path):
    save(tmp_path / "cat" / "a.png", 1)
    save(tmp_path / "dog" / "b.png", 2)
    (tmp_path / "cat" / "up").symlink_to(tmp_path)
    assert [image.getpixel((0, 0)) for image in user_images.load(tmp_path)["image"]] == [1, 2]
    (tmp_path / "dog" / "other").symlink_to(tmp_path / "cat")
    assert [image.getpixel((0, 0)) for image in user_images.load(tmp_path)["image"]] == [1, 2, 1]
    (tmp_path / "owl").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="owl is empty: each subfolder is a class and must hold images of its own"):
        user_images.load(tmp_path)
