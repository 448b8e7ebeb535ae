import torch

from ditbook.metrics.text import exact_match

PAD, BOS, EOS = 0, 1, 2


def test_exact_match_counts_every_word_up_to_the_end():
    wanted = torch.tensor([[7, 8, EOS, PAD], [7, 8, 9, EOS], [7, EOS, PAD, PAD], [EOS, PAD, PAD, PAD]])
    assert exact_match(wanted, wanted, EOS).all()
    written = torch.tensor([[7, 8, EOS], [7, 8, 9], [7, EOS, 5], [EOS, EOS, EOS]])
    assert exact_match(written, wanted, EOS).tolist() == [True, True, True, True]
    written = torch.tensor([[7, 8, 9, EOS], [7, 8, EOS, 9], [8, EOS, EOS, EOS], [BOS, EOS, EOS, EOS]])
    assert exact_match(written, wanted, EOS).tolist() == [False] * 4
