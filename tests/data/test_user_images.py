import socket
import threading
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as Picture

from ditbook.data import digits, tensors
from ditbook.data import user_images as hub


def save(path: Path, grey: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.new("L", (4, 4), grey).save(path)


def named(**columns: list) -> Dataset:
    """A dataset of one row per value, whose first column holds grey pictures."""
    first, *_ = columns
    dataset = Dataset.from_dict({**columns, first: [Picture.new("L", (2, 2), grey) for grey in columns[first]]})
    return dataset.cast_column(first, Image())


class TestFolder:
    def test_subfolders_are_classes(self, tmp_path):
        save(tmp_path / "dog" / "b.PNG", 3)
        save(tmp_path / "dog" / "a.png", 2)
        save(tmp_path / "cat" / "deep" / "c.jpg", 1)
        (tmp_path / "cat" / "notes.txt").write_text("not a picture")
        (tmp_path / ".ipynb_checkpoints").mkdir()
        dataset = hub.load(tmp_path)
        assert dataset.features["label"].names == ["cat", "dog"]
        assert dataset["label"] == [0, 1, 1]
        assert [picture.getpixel((0, 0)) for picture in dataset["image"]] == [1, 2, 3]
        assert tensors(hub.load(str(tmp_path)))["image"].shape == (3, 1, 4, 4)

    def test_pictures_alone_have_no_label(self, tmp_path):
        save(tmp_path / "a.png", 1)
        assert hub.load(tmp_path).column_names == ["image"]

    def test_the_subfolder_of_the_split_is_taken(self, tmp_path):
        save(tmp_path / "train" / "cat" / "a.png", 1)
        save(tmp_path / "test" / "cat" / "a.png", 9)
        assert hub.load(tmp_path)[0]["image"].getpixel((0, 0)) == 1
        assert hub.load(tmp_path, split="test")[0]["image"].getpixel((0, 0)) == 9
        with pytest.raises(ValueError, match="no subfolder 'validation'"):
            hub.load(tmp_path, split="validation")

    def test_a_folder_without_splits_is_train_only(self, tmp_path):
        save(tmp_path / "cat" / "a.png", 1)
        with pytest.raises(ValueError, match="no subfolder 'test'"):
            hub.load(tmp_path, split="test")

    @pytest.mark.parametrize("keep", [0, 0.02, 0.5])
    def test_a_corrupt_picture_is_named_with_its_path(self, tmp_path, keep):
        save(tmp_path / "cat" / "good.png", 1)
        bad = tmp_path / "cat" / "bad.png"
        noise = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
        Picture.fromarray(noise).save(bad)
        bad.write_bytes(bad.read_bytes()[: int(keep * bad.stat().st_size)])
        with pytest.raises(ValueError, match="is not a readable picture") as caught:
            hub.load(tmp_path)
        assert str(bad) in str(caught.value)

    def test_empty_folders_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match="is empty"):
            hub.load(tmp_path)
        save(tmp_path / "cat" / "a.png", 1)
        (tmp_path / "dog").mkdir()
        with pytest.raises(ValueError, match="dog is empty: each subfolder is a class"):
            hub.load(tmp_path)

    def test_pictures_beside_classes_are_refused(self, tmp_path):
        save(tmp_path / "a.png", 1)
        save(tmp_path / "cat" / "b.png", 1)
        with pytest.raises(ValueError, match=r"a\.png.*beside subfolders.*cat"):
            hub.load(tmp_path)

    def test_a_missing_folder_and_a_foreign_file_are_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no folder .*absent"):
            hub.load(str(tmp_path / "absent"))
        save(tmp_path / "a.png", 1)
        with pytest.raises(ValueError, match="is a file; expected a folder"):
            hub.load(tmp_path / "a.png")


class TestParquet:
    def test_digits_survive_the_way_through_a_file(self, tmp_path):
        dataset = digits.load("validation")
        dataset.to_parquet(tmp_path / "digits.parquet")
        back = hub.load(tmp_path / "digits.parquet")
        assert back.features == dataset.features
        np.testing.assert_array_equal(tensors(back)["image"], tensors(dataset)["image"])

    def test_several_files_are_joined_and_a_rewritten_one_is_read_anew(self, tmp_path):
        paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
        named(image=[1, 2], text=["one", "two"]).to_parquet(paths[0])
        named(image=[3], text=["three"]).to_parquet(paths[1])
        assert hub.load(paths)["caption"] == ["one", "two", "three"]
        named(image=[4], text=["four"]).to_parquet(paths[1])
        assert hub.load([str(path) for path in paths])["caption"] == ["one", "two", "four"]

    def test_bytes_without_metadata_become_pictures(self, tmp_path):
        table = named(image=[7]).data.table.replace_schema_metadata(None)
        pyarrow.parquet.write_table(table, tmp_path / "plain.parquet")
        assert hub.load(tmp_path / "plain.parquet")[0]["image"].getpixel((0, 0)) == 7

    def test_bad_files_are_named(self, tmp_path):
        (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
        with pytest.raises(ValueError, match=r"bad\.parquet is not a readable parquet file"):
            hub.load(tmp_path / "bad.parquet")
        with pytest.raises(FileNotFoundError, match=r"absent\.parquet"):
            hub.load(tmp_path / "absent.parquet")
        with pytest.raises(ValueError, match="list of parquet files is empty"):
            hub.load([])

    def test_a_file_without_rows_is_refused(self, tmp_path):
        Dataset.from_dict({"image": []}, features=Features({"image": Image()})).to_parquet(tmp_path / "none.parquet")
        with pytest.raises(ValueError, match="dataset is empty"):
            hub.load(tmp_path / "none.parquet")


class TestColumns:
    def test_common_names_are_translated_and_others_dropped(self):
        dataset = hub.standard_columns(named(img=[1], fine_label=[4], text=["a cat"], width=[2]))
        assert dataset.column_names == ["image", "label", "caption"]
        assert dataset[0]["label"] == 4
        assert dataset[0]["caption"] == "a cat"

    def test_a_standard_name_wins_over_an_alternative(self):
        assert hub.standard_columns(named(image=[1], label=[4], target=[5]))[0]["label"] == 4

    def test_class_names_are_kept(self):
        dataset = named(img=[1], labels=[0]).cast_column("labels", ClassLabel(names=["cat"]))
        assert hub.standard_columns(dataset).features["label"].names == ["cat"]

    def test_two_candidates_are_an_error_that_lists_the_columns(self):
        with pytest.raises(ValueError, match="label could be any of fine_label, coarse_label") as caught:
            hub.standard_columns(named(img=[1], fine_label=[4], coarse_label=[2]))
        assert "`img`, `fine_label`, `coarse_label`" in str(caught.value)

    def test_no_image_is_an_error_that_lists_the_columns(self):
        dataset = Dataset.from_dict({"sound": ["a"]}, features=Features({"sound": Value("string")}))
        with pytest.raises(ValueError, match=r"no column holds images.*found are `sound`"):
            hub.standard_columns(dataset)

    def test_an_image_column_of_something_else_is_an_error(self):
        with pytest.raises(ValueError, match="column `image` holds"):
            hub.standard_columns(Dataset.from_dict({"image": [1, 2]}))


class TestHub:
    @pytest.fixture(autouse=True)
    def _online(self, monkeypatch):
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)

    def test_without_network_the_error_names_the_digits(self, monkeypatch):
        asked = []

        def refuse(address, timeout):
            asked.append(address)
            raise OSError("no route")

        monkeypatch.delenv("HF_ENDPOINT", raising=False)
        monkeypatch.setattr(hub.urllib.request, "getproxies", dict)
        monkeypatch.setattr(socket, "create_connection", refuse)
        monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("asked the hub"))
        with pytest.raises(ConnectionError, match=r"'someone/pictures'.*ditbook\.data\.digits"):
            hub.load("someone/pictures")
        assert asked == [("huggingface.co", 443)]

    def test_a_connection_that_hangs_is_given_up(self, monkeypatch):
        never = threading.Event()

        def hang(address, timeout):
            never.wait(5)
            return socket.socket()

        monkeypatch.setattr(hub, "PATIENCE", 0.05)
        monkeypatch.setattr(socket, "create_connection", hang)
        monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("asked the hub"))
        with pytest.raises(ConnectionError, match=r"ditbook\.data\.digits"):
            hub.load("someone/pictures")
        never.set()

    def test_a_proxy_is_asked_in_place_of_the_hub(self, monkeypatch):
        asked = []

        def accept(address, timeout):
            asked.append(address)
            return socket.socket()

        monkeypatch.setattr(hub.urllib.request, "getproxies", lambda: {"https": "http://proxy.example:3128"})
        monkeypatch.setattr(socket, "create_connection", accept)
        monkeypatch.setattr(datasets, "load_dataset", lambda name, split: named(img=[1, 2], text=[name, split]))
        assert hub.load("someone/pictures", split="test")["caption"] == ["someone/pictures", "test"]
        assert asked == [("proxy.example", 3128)]

    def test_a_connection_lost_later_names_the_digits_too(self, monkeypatch):
        def lose(*_, **__):
            raise ConnectionError("lost")

        monkeypatch.setattr(hub, "_hub_answers", lambda: True)
        monkeypatch.setattr(datasets, "load_dataset", lose)
        with pytest.raises(ConnectionError, match=r"ditbook\.data\.digits"):
            hub.load("someone/pictures")
