import pytest
import torch

from ditbook.metrics.retrieval import recall_at


@pytest.mark.equation("8.8", of="ditbook.metrics.retrieval.recall_at", against="counted by hand")
def test_recall_counts_the_rows_whose_right_column_is_among_the_best():
    logits = torch.tensor([[3.0, 1.0, 2.0], [5.0, 4.0, 0.0], [9.0, 8.0, 7.0]])  # right: first, second, third
    assert [recall_at(logits, k) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])
    for bad, k in ((logits[:2], 1), (logits, 0), (logits, 4)):
        with pytest.raises(ValueError, match="recall at"):
            recall_at(bad, k)
