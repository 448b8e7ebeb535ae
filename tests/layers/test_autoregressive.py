"""The two base classes, with a model that counts."""

import torch
from torch import nn

from ditbook.layers.autoregressive import EncoderDecoder


class Sums(EncoderDecoder):
    """Logits that point at the sum of the source and of all target tokens so far, modulo 7."""

    def start(self, tokens):
        return {"sum": tokens.sum(1)}

    def decode(self, tokens, state):
        sums = state["sum"][:, None] + tokens.cumsum(1)
        return nn.functional.one_hot(sums % 7, 7).float(), {"sum": sums[:, -1]}


def test_forward_reads_the_whole_target_and_step_one_token_of_it():
    source, target = torch.tensor([[1, 2], [5, 0]]), torch.tensor([[1, 3, 2], [6, 6, 0]])
    model = Sums()
    logits = model(source, target)
    assert logits.argmax(-1).tolist() == [[4, 0, 2], [4, 3, 3]]
    state = model.start(source)
    for t in range(3):
        one, state = model.step(target[:, t], state)
        assert one.shape == (2, 7)
        assert torch.equal(one, logits[:, t])
