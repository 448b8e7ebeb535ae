import numpy as np
import pyarrow.parquet
import pytest
from datasets import Dataset, Features, Image, Value

from ditbook.data import digits, tensors, user_images

RNG = np.random.default_rng(0)


def test_digits_survive_the_way_through_a_file(tmp_path):
    dataset = digits.load("validation")
    dataset.to_parquet(tmp_path / "digits.parquet")
    back = user_images.load(tmp_path / "digits.parquet")
    assert back.features == dataset.features
    np.testing.assert_array_equal(tensors(back)["image"], tensors(dataset)["image"])


def test_several_files_are_joined_and_a_rewritten_one_is_read_anew(tmp_path, named):
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    named(image=[1, 2], text=["one", "two"]).to_parquet(paths[0])
    named(image=[3], text=["three"]).to_parquet(paths[1])
    assert user_images.load(paths)["caption"] == ["one", "two", "three"]
    named(image=[4], text=["four"]).to_parquet(paths[1])
    assert user_images.load([str(path) for path in paths])["caption"] == ["one", "two", "four"]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(("column", "values"), [("text", ["c"]), ("label", ["3"])])
def test_files_of_other_columns_are_named(tmp_path, named, streaming, column, values):
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    named(image=[1], label=[2]).to_parquet(paths[0])
    named(image=[3], **{column: values}).to_parquet(paths[1])
    message = rf"b\.parquet has the columns image .*, {column} \(string\); expected those of .*label \(int64\)"
    with pytest.raises(ValueError, match=message):
        user_images.load(paths, streaming=streaming)


@pytest.mark.parametrize("streaming", [False, True])
def test_order_and_width_of_columns_do_not_matter(tmp_path, named, streaming):
    narrow = named(image=[1], label=[2], text=[None]).cast_column("label", Value("int32"))
    narrow.to_parquet(tmp_path / "a.parquet")
    named(image=[3], text=["c"], label=[4]).to_parquet(tmp_path / "b.parquet")
    dataset = user_images.load([tmp_path / "a.parquet", tmp_path / "b.parquet"], streaming=streaming)
    found = [(row["image"].getpixel((0, 0)), row["label"], row["caption"]) for row in dataset]
    assert found == [(1, 2, None), (3, 4, "c")]
    assert (dataset.features["label"], dataset.features["caption"]) == (Value("int64"), Value("string"))


def test_a_large_row_group_is_read_bit_by_bit(tmp_path):
    table = pyarrow.table({"image": [RNG.bytes(10_000) for _ in range(1000)]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", use_dictionary=False, write_batch_size=50)  # rows a page
    before = pyarrow.total_allocated_bytes()
    rows = user_images._rows_of_groups([(str(tmp_path / "a.parquet"), 0)])
    next(rows)
    assert pyarrow.total_allocated_bytes() - before < 6e6  # of ten million
    rows.close()


def test_bytes_without_metadata_become_images(tmp_path, named):
    table = named(image=[7]).data.table.replace_schema_metadata(None)
    pyarrow.parquet.write_table(table, tmp_path / "plain.parquet")
    assert user_images.load(tmp_path / "plain.parquet")[0]["image"].getpixel((0, 0)) == 7


def test_bad_files_are_named(tmp_path):
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"bad\.parquet is not a readable parquet file"):
        user_images.load(tmp_path / "bad.parquet")
    with pytest.raises(FileNotFoundError, match=r"absent\.parquet"):
        user_images.load(tmp_path / "absent.parquet")
    with pytest.raises(ValueError, match="list of parquet files is empty"):
        user_images.load([])


def test_a_file_without_rows_is_refused(tmp_path):
    Dataset.from_dict({"image": []}, features=Features({"image": Image()})).to_parquet(tmp_path / "none.parquet")
    with pytest.raises(ValueError, match="dataset is empty"):
        user_images.load(tmp_path / "none.parquet")
