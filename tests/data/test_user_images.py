import io

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, IterableDataset, Value, load_from_disk
from PIL import Image as Picture

from ditbook.data import batches, digits, tensors, user_images
from ditbook.data.images import ORIENTATION

RNG = np.random.default_rng(0)


def noise(*shape):
    return Picture.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8))


@pytest.fixture
def mixed(tmp_path):
    """A folder of two classes and six images, no two of one mode and size."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    turned = Picture.Exif()
    turned[ORIENTATION] = 6
    noise(32, 32, 3).save(tmp_path / "a" / "0 rgb.png")
    noise(48, 64).save(tmp_path / "a" / "1 grey.png")
    noise(90, 40, 3).save(tmp_path / "a" / "2 turned.jpg", exif=turned)
    noise(32, 32, 4).save(tmp_path / "b" / "3 rgba.png")
    Picture.frombytes("CMYK", (32, 32), RNG.bytes(4096)).save(tmp_path / "b" / "4 cmyk.jpg")
    noise(16, 16, 3).quantize(8).save(tmp_path / "b" / "5 palette.gif")
    return tmp_path


class TestColumns:
    def test_common_names_are_translated_and_others_dropped(self, named):
        dataset = user_images.standard_columns(named(img=[1], fine_label=[4], text=["a cat"], width=[2]))
        assert dataset.column_names == ["image", "label", "caption"]
        assert dataset[0]["label"] == 4
        assert dataset[0]["caption"] == "a cat"

    def test_a_standard_name_wins_over_an_alternative(self, named):
        assert user_images.standard_columns(named(image=[1], label=[4], target=[5]))[0]["label"] == 4

    def test_class_names_are_kept(self, named):
        dataset = named(img=[1], labels=[0]).cast_column("labels", ClassLabel(names=["cat"]))
        assert user_images.standard_columns(dataset).features["label"].names == ["cat"]

    def test_two_candidates_are_an_error_that_lists_the_columns(self, named):
        with pytest.raises(ValueError, match="label could be any of fine_label, coarse_label") as caught:
            user_images.standard_columns(named(img=[1], fine_label=[4], coarse_label=[2]))
        assert "`img`, `fine_label`, `coarse_label`" in str(caught.value)

    def test_no_image_is_an_error_that_lists_the_columns(self):
        dataset = Dataset.from_dict({"sound": ["a"]}, features=Features({"sound": Value("string")}))
        with pytest.raises(ValueError, match=r"no column holds images.*found are `sound`"):
            user_images.standard_columns(dataset)

    def test_an_image_column_of_something_else_is_an_error(self):
        with pytest.raises(ValueError, match="column `image` holds"):
            user_images.standard_columns(Dataset.from_dict({"image": [1, 2]}))

    def test_words_become_numbers_and_their_names_are_kept(self, named):
        dataset = user_images.standard_columns(named(image=[1, 2, 3], label=["owl", "cat", "owl"]))
        assert dataset.features["label"].names == ["cat", "owl"]
        assert tensors(dataset)["label"].tolist() == [1, 0, 1]

    @pytest.mark.parametrize("way", ["folder", "parquet", "known", "unknown"])
    def test_words_of_a_stream_become_the_same_numbers(self, named, tmp_path, caplog, way):
        words = ["owl", "cat", "owl"]
        rows = named(image=[1, 2, 3], label=words)
        if way == "folder":
            for k, row in enumerate(rows):
                row["image"].save(tmp_path / f"{k}.png")
            lines = [f'{{"file_name": "{k}.png", "label": "{word}"}}\n' for k, word in enumerate(words)]
            (tmp_path / "metadata.jsonl").write_text("".join(lines))
            stream = user_images.load(tmp_path, streaming=True)
        elif way == "parquet":
            for k in (0, 1):
                rows.select([0, 1] if k == 0 else [2]).to_parquet(tmp_path / f"{k}.parquet")
            stream = user_images.load([tmp_path / "0.parquet", tmp_path / "1.parquet"], streaming=True)
        else:
            stream = (
                rows.to_iterable_dataset() if way == "known" else IterableDataset.from_generator(lambda: iter(rows))
            )
            stream = user_images.standard_columns(stream)
        assert stream.features["label"].names == ["cat", "owl"]
        assert [row["label"] for row in stream] == [1, 0, 1]
        prepared = user_images.prepare(stream, 4, "L")
        assert prepared.features["label"].names == ["cat", "owl"]
        assert sorted(next(batches(prepared, 3, torch.Generator()))["label"].tolist()) == [0, 1, 1]
        assert sum("the whole stream is read once" in said for said in caplog.messages) == (way in ("known", "unknown"))

    @pytest.mark.parametrize("name", ["text", "prompt", "description", "sentences", "Caption", "TEXT"])
    def test_captions_have_many_names(self, named, name):
        assert user_images.standard_columns(named(image=[1], **{name: ["a cat"]}))["caption"] == ["a cat"]

    def test_rarer_names_of_captions_stand_back(self, named):
        dataset = named(image=[1], description=["a"], text=["b"], prompt=["c"])
        assert user_images.standard_columns(dataset)["caption"] == ["b"]
        with pytest.raises(ValueError, match=r"caption could be any of description, prompt;"):
            user_images.standard_columns(dataset.remove_columns("text"))

    def test_it_says_what_it_drops(self, named, caplog):
        user_images.standard_columns(named(img=[1], caption=["a"], text=["b"], width=[2]))
        user_images.standard_columns(named(image=[1], story=["a"]))
        user_images.standard_columns(named(image=[1], label=[1], text=["a"]))
        assert caplog.messages == [
            "columns kept: `img`, `caption`; dropped: `text`, `width`",
            "columns kept: `image`; dropped: `story`; a caption must be named caption, text, captions, sentence, "
            "sentences, texts, prompt, prompts, description, descriptions, alt_text",
        ]

    def test_captions_are_strings_or_lists_of_strings(self, named):
        rows = [["a cat", "an animal"], ["an owl"]]
        assert list(user_images.standard_columns(named(image=[1, 2], sentences=rows))["caption"]) == rows
        for other in ([1, 2], [[{"raw": "a"}], [{"raw": "b"}]]):
            with pytest.raises(ValueError, match=r"column `caption` holds .*; expected a string or a list of strings"):
                user_images.standard_columns(named(image=[1, 2], caption=other))


class TestPrepare:
    def test_a_mixed_folder_becomes_one_tensor(self, mixed):
        dataset = user_images.load(mixed)
        with pytest.raises(ValueError, match=r"row 1: .*mode L.*row 0 is .*mode RGB; make all .*user_images\.prepare"):
            tensors(dataset)
        ready = tensors(user_images.prepare(dataset, 32))
        assert ready["image"].shape == (6, 3, 32, 32)
        assert ready["label"].tolist() == [0, 0, 0, 1, 1, 1]
        assert tensors(user_images.prepare(dataset, 8, "L"))["image"].shape == (6, 1, 8, 8)

    def test_it_says_what_it_changed(self, mixed, caplog):
        prepared = user_images.prepare(user_images.load(mixed), 32)
        assert prepared.column_names == ["image", "label", "changes"]
        assert list(prepared["changes"]) == [
            [],
            ["converted from L", "reduced", "cropped"],
            ["turned", "reduced", "cropped"],
            ["converted from RGBA"],
            ["converted from CMYK"],
            ["converted from P", "enlarged"],
        ]
        assert caplog.messages == [
            "6 images of 32×32 pixels, mode RGB: 2 reduced, 2 cropped, 1 converted from L, 1 turned, "
            "1 converted from RGBA, 1 converted from CMYK, 1 converted from P, 1 enlarged"
        ]

    def test_nothing_is_changed_or_said_where_nothing_has_to_be(self, caplog):
        digit = digits.load("validation").select(range(20))
        prepared = user_images.prepare(digit, 8, "L")
        assert torch.equal(tensors(prepared)["image"], tensors(digit)["image"])
        assert prepared.features["label"] == digit.features["label"]
        assert not caplog.messages

    def test_captions_stay(self, named):
        assert list(user_images.prepare(named(image=[1], text=["a"]), 4)["caption"]) == ["a"]

    def test_the_image_that_cannot_be_read_is_named(self, mixed):
        dataset = user_images.load(mixed)
        path = mixed / "b" / "4 cmyk.jpg"
        path.write_bytes(path.read_bytes()[:900])
        for way in (dataset, user_images.load(mixed, streaming=True)):
            with pytest.raises(ValueError, match=r"row 4 \(.*4 cmyk\.jpg\): no readable image"):
                list(user_images.prepare(way, 32))
        rows = Dataset.from_dict({"image": [Picture.new("L", (2, 2)), None]}).cast_column("image", Image())
        with pytest.raises(ValueError, match=r"row 1: no readable image \(expected an image, found a NoneType"):
            user_images.prepare(rows, 32)

    def test_bad_settings_are_named(self, named):
        with pytest.raises(ValueError, match="the size must be positive, not 0"):
            user_images.prepare(named(image=[1]), 0)
        with pytest.raises(ValueError, match="no mode 'RGBA'; there are L, RGB"):
            user_images.prepare(named(image=[1]), 4, "RGBA")

    def test_it_survives_the_way_through_files(self, mixed, tmp_path):
        prepared = user_images.prepare(user_images.load(mixed), 16)
        prepared.save_to_disk(tmp_path / "kept")
        assert torch.equal(tensors(load_from_disk(tmp_path / "kept"))["image"], tensors(prepared)["image"])


class TestStream:
    def test_a_folder_streams_what_it_loads(self, mixed):
        whole = user_images.prepare(user_images.load(mixed), 16)
        stream = user_images.prepare(user_images.load(mixed, streaming=True), 16)
        assert isinstance(stream, IterableDataset)
        rows = list(stream)
        assert [row["changes"] for row in rows] == list(whole["changes"])
        for row, other in zip(rows, whole, strict=True):
            np.testing.assert_array_equal(row["image"], other["image"])
            assert row["label"] == other["label"]

    def test_a_large_folder_has_few_shards(self, mixed, monkeypatch):
        monkeypatch.setattr(user_images, "SHARDS", 4)
        stream = user_images.load(mixed, streaming=True)
        assert stream.num_shards == 3
        assert [row["label"] for row in stream] == [0, 0, 0, 1, 1, 1]
        monkeypatch.setattr(user_images, "LARGEST_SHARD", 1)
        assert user_images.load(mixed, streaming=True).num_shards == 6

    def test_parquet_files_stream_what_they_load(self, named, tmp_path):
        for k in (0, 1):
            named(image=[10 * k + 1, 10 * k + 2], text=["a", "b"]).to_parquet(tmp_path / f"{k}.parquet")
        paths = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
        rows = list(user_images.prepare(user_images.load(paths, streaming=True), 4, "L"))
        assert [(row["image"].getpixel((0, 0)), row["caption"]) for row in rows] == [
            (1, "a"),
            (2, "b"),
            (11, "a"),
            (12, "b"),
        ]
        (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
        with pytest.raises(ValueError, match=r"bad\.parquet is not a readable parquet file"):
            user_images.load(tmp_path / "bad.parquet", streaming=True)

    def test_the_words_of_parquet_files_are_read_without_their_images(self, named, tmp_path, monkeypatch):
        named(image=[1, 2], label=["owl", "cat"]).to_parquet(tmp_path / "a.parquet")
        monkeypatch.delattr(IterableDataset, "__iter__")
        stream = user_images.load(tmp_path / "a.parquet", streaming=True)
        assert stream.features["label"].names == ["cat", "owl"]

    def test_a_stream_that_does_not_know_its_columns(self):
        def rows():
            for grey in range(5):
                yield {"img": Picture.new("L", (3, 4), grey), "text": "abcde"[grey], "other": 1}

        stream = user_images.prepare(IterableDataset.from_generator(rows), 2, "L")
        assert [(row["image"].size, row["caption"]) for row in stream] == [((2, 2), letter) for letter in "abcde"]

    @pytest.mark.parametrize(
        ("column", "values", "message"),
        [
            ("text", ["a", ["b", "c"]], r"`caption` mixes types: \['b', 'c'\] is list.* first row it is string"),
            ("text", [["b", "c"], "a"], "`caption` mixes types: 'a' is string, in the first row it is list"),
            ("label", [1, 2.5], "`label` mixes types: 2.5 is double, in the first row it is int64"),
            ("label", ["owl", 1], "`label` mixes types: 1 is int64, in the first row it is string"),
        ],
    )
    def test_a_stream_of_mixed_types_is_refused(self, column, values, message):
        def rows():
            for value in values:
                yield {"image": Picture.new("L", (2, 2)), column: value}

        with pytest.raises(ValueError, match=message):
            list(user_images.standard_columns(IterableDataset.from_generator(rows)))

    def test_a_stream_of_arrays_and_lists(self):
        def rows():
            for label in (np.int32(3), torch.tensor(4), 5, None):
                yield {"image": Picture.new("L", (2, 2)), "label": label, "caption": ["a", "b"]}

        found = list(user_images.standard_columns(IterableDataset.from_generator(rows)))
        assert [(row["label"], row["caption"]) for row in found] == [(k, ["a", "b"]) for k in (3, 4, 5, None)]

    @pytest.mark.parametrize("captions", [[None, "a"], [["a"], []]])
    def test_a_stream_where_a_caption_is_missing(self, captions):
        def rows():
            for caption in captions:
                yield {"image": Picture.new("L", (2, 2)), "caption": caption}

        found = list(user_images.standard_columns(IterableDataset.from_generator(rows)))
        assert [row["caption"] for row in found] == captions

    @pytest.mark.parametrize("source", ["folder", "parquet"])
    def test_a_stream_sorted_by_class_is_mixed_in_its_first_batches(self, named, tmp_path, source):
        """Of 3,000 images of three classes the 1,000 that come first are all of the first."""
        labels = [k // 1000 for k in range(3000)]
        if source == "folder":
            pixel = io.BytesIO()
            Picture.new("L", (1, 1)).save(pixel, "PNG")
            for k, label in enumerate(labels):
                (tmp_path / f"class {label}").mkdir(exist_ok=True)
                (tmp_path / f"class {label}" / f"{k:04}.png").write_bytes(pixel.getvalue())
            stream = user_images.load(tmp_path, streaming=True)
        else:
            named(image=[0] * 3000, label=labels).to_parquet(tmp_path / "all.parquet", batch_size=50)
            stream = user_images.load(tmp_path / "all.parquet", streaming=True)
        endless = batches(user_images.prepare(stream, 1, "L"), 60, torch.Generator().manual_seed(0))
        found = torch.cat([next(endless)["label"] for _ in range(5)]).bincount(minlength=3)
        assert found.min() > 60  # of 300; 100 of each are expected

    def test_a_prepared_stream_is_shuffled_and_cut_into_batches(self, mixed):
        stream = user_images.prepare(user_images.load(mixed, streaming=True), 8)
        endless = batches(stream, 3, torch.Generator().manual_seed(0))
        passes = [torch.cat([next(endless)["image"] for _ in range(2)]) for _ in range(4)]
        whole = tensors(user_images.prepare(user_images.load(mixed), 8))["image"]
        orders = [tuple((image == whole).flatten(1).all(dim=1).nonzero().item() for image in part) for part in passes]
        assert all(sorted(order) == list(range(6)) for order in orders)
        assert len(set(orders)) > 1
