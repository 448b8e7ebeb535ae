import hashlib
import json

import pytest
from datasets import Dataset, Image
from PIL import Image as Picture


@pytest.fixture(scope="session")
def fingerprint():
    """What a dataset's columns hold, in 16 digits: a row that changed anywhere changes them."""

    def of(dataset, *columns):
        rows = json.dumps([list(dataset[column]) for column in columns], ensure_ascii=False)
        return hashlib.sha256(rows.encode()).hexdigest()[:16]

    return of


@pytest.fixture(scope="session")
def named():
    """A dataset of one row per value, whose first column holds grey images."""

    def of(**columns: list) -> Dataset:
        first, *_ = columns
        dataset = Dataset.from_dict({**columns, first: [Picture.new("L", (2, 2), grey) for grey in columns[first]]})
        return dataset.cast_column(first, Image())

    return of
