import pytest
import torch

from ditbook import generation
from ditbook.models.dalle import BOS, DALLE, PAD, DALLEConfig

CONFIG = DALLEConfig(words=9, codes=5, text=6, grid=2, width=16, depth=2, heads=2)
BEGIN = CONFIG.begin_image


def make(double=False):
    torch.manual_seed(0)
    model = DALLE(CONFIG)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.double() if double else model


def rows(image_first):
    text = torch.tensor([[BOS, 4, 5, 2, PAD, PAD], [BOS, 8, 7, 6, 4, 2]])
    image = torch.tensor([[0, 4, 2, 1], [3, 3, 0, 1]])
    return make().sequence(text, image, image_first=image_first)


def test_a_sequence_is_two_parts_each_with_its_begin():
    assert rows(False).tolist()[0] == [BOS, 4, 5, 2, PAD, PAD, BEGIN, 9, 13, 11, 10]
    assert rows(True).tolist()[0] == [BEGIN, 9, 13, 11, 10, BOS, 4, 5, 2, PAD, PAD]
    assert rows(False).shape[1] == CONFIG.length == 11
    assert make().sequence(torch.full((2, 6), 4), torch.zeros(2, 0, dtype=torch.long)).shape == (2, 7)
    assert CONFIG.vocabulary == 9 + 5 + 1


def test_a_token_keeps_its_position_in_either_order():
    model = make()
    caption, picture = (model.indices(rows(order)[:, 0], 0, 11) for order in (False, True))
    assert caption.tolist()[0] == list(range(11))
    assert picture.tolist()[0] == [6, 7, 8, 9, 10, 0, 1, 2, 3, 4, 5]
    both = model.embed(rows(True), picture)
    torch.testing.assert_close(both.roll(6, dims=1), model.embed(rows(False), caption))


@pytest.mark.equation("9.12", of="ditbook.models.dalle.DALLE.embed", against="every term by hand")
def test_what_a_token_is_made_of():
    model, tokens = make(), rows(False)
    x = model.embed(tokens, model.indices(tokens[:, 0], 0, 11))
    word, code = model.tokens.weight[4] + model.places.weight[1], model.tokens.weight[9 + 2]
    torch.testing.assert_close(x[0, 1], word)
    torch.testing.assert_close(x[0, 9], code + model.rows.weight[1] + model.columns.weight[0])
    torch.testing.assert_close(x[0, 6], model.tokens.weight[BEGIN])
    torch.testing.assert_close(x[0, 5], model.padding.weight[5] + model.places.weight[5])  # one padding a place


@pytest.mark.equation("9.13", of="ditbook.models.dalle.DALLE.logits", against="the kinds of tokens place by place")
def test_text_predicts_text_and_image_predicts_image():
    for order in (False, True):
        tokens = rows(order)
        finite = make()(tokens[:, :-1]).isfinite()
        for place, after in enumerate(tokens[0, 1:].tolist()):
            kinds = {"word": after < 9, "code": 9 <= after < BEGIN, "begin": after == BEGIN}
            wanted = [kinds["word"]] * 9 + [kinds["code"]] * 5 + [kinds["begin"]]
            assert finite[0, place].tolist() == wanted


def test_no_token_depends_on_a_later_one():
    model = make()
    for order in (False, True):
        tokens = rows(order)
        before = model(tokens)[:, :8]
        tokens[:, 8:] = tokens[:, 8:].flip(0)
        assert torch.equal(before, model(tokens)[:, :8])


@pytest.mark.parametrize("order", [False, True])
def test_reading_step_by_step_gives_the_same_logits(order):
    model, tokens = make(double=True), rows(order)
    whole = model(tokens)
    state = model.start(tokens[:, :3])
    logits, state = model.decode(tokens[:, 3:5], state)
    torch.testing.assert_close(logits, whole[:, 3:5])
    for place in range(5, 11):
        logits, state = model.step(tokens[:, place], state)
        torch.testing.assert_close(logits, whole[:, place])


def test_greedy_decoding_writes_codes_and_the_state_can_be_used_again():
    model, tokens = make(), rows(False)
    state = model.start(tokens[:, :6])
    written = [generation.greedy(model.step, state, first=tokens[:, 6], max_length=4) for _ in range(2)]
    assert torch.equal(*written)
    prompt = tokens[:, :7]
    for _ in range(4):
        prompt = torch.cat([prompt, model(prompt)[:, -1].argmax(dim=-1, keepdim=True)], dim=1)
    assert torch.equal(prompt[:, 7:], written[0])
    assert ((written[0] >= 9) & (written[0] < BEGIN)).all()
    generator = torch.Generator().manual_seed(0)
    words = generation.sample(
        model.step, model.start(rows(True)[:, :5]), first=BOS, max_length=5, generator=generator, eos=2
    )
    assert (words < 9).all()


def test_the_parts_that_the_loss_counts():
    text, image = make().parts(rows(False))
    assert text.int().tolist()[0] == [0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert image.int().tolist()[0] == [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1]


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="width 15 is not divisible by heads 2"):
        DALLEConfig(width=15, heads=2)
    with pytest.raises(ValueError, match="a sequence of 12 tokens; this model takes 11 at most"):
        make()(torch.ones(1, 12, dtype=torch.long))
    assert DALLEConfig().length == 256 + 1 + 1024
