import pytest
import torch

from ditbook.data.tokenizer import BOS, EOS, PAD
from ditbook.models.gpt import GPT, GPTConfig, GPTScorer
from ditbook.training import policies

CONFIG = GPTConfig(vocabulary=9, longest=16, width=16, depth=2, heads=2)
PROMPTS = torch.tensor([[4, 5, 6, 7, BOS], [PAD, PAD, 8, 4, BOS], [PAD, 5, 5, 5, BOS]])
TEXTS = torch.tensor([[6, 7, EOS, PAD], [EOS, PAD, PAD, PAD], [8, 8, 8, 8]])


@pytest.fixture
def policy():
    torch.manual_seed(0)
    model = GPT(CONFIG)
    for parameter in model.parameters():  # far from uniform
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture
def scorer():
    torch.manual_seed(1)
    return GPTScorer(CONFIG)


def test_log_probabilities_are_those_of_each_text_alone(policy):
    """Without padding, one text at a time."""
    found = policies.token_log_probs(policy, PROMPTS, TEXTS)
    for prompt, text, row in zip(PROMPTS, TEXTS, found, strict=True):
        prompt, text = prompt[prompt != PAD], text[text != PAD]
        log_p = policy(torch.cat([prompt, text])[None]).log_softmax(dim=-1)[0]
        for t, token in enumerate(text):
            torch.testing.assert_close(row[t], log_p[len(prompt) - 1 + t, token])
        assert (row[len(text) :] == 0).all()


def test_scores_are_read_at_the_last_token_and_values_before_each(scorer):
    scores, values = policies.scores(scorer, PROMPTS, TEXTS), policies.values(scorer, PROMPTS, TEXTS)
    for prompt, text, score, row in zip(PROMPTS, TEXTS, scores, values, strict=True):
        prompt, text = prompt[prompt != PAD], text[text != PAD]
        alone = scorer(torch.cat([prompt, text])[None])[0]
        torch.testing.assert_close(score, alone[-1])
        torch.testing.assert_close(row[: len(text)], alone[len(prompt) - 1 : -1])


def test_a_text_reaches_to_its_end_token():
    texts = torch.tensor([[6, EOS, PAD], [6, PAD, 7], [EOS, EOS, 6]])  # padding before an end is a token like others
    assert policies.written(texts).tolist() == [[True, True, False], [True, True, True], [True, False, False]]


def test_written_texts_end_once_and_have_the_probabilities_of_the_policy(policy):
    prompts = PROMPTS[1:2].expand(20_000, -1)
    texts = policies.write(policy, prompts, 3, torch.Generator().manual_seed(0))
    assert texts.shape == (20_000, 3)
    assert (texts[~policies.written(texts)] == PAD).all()
    shown, counts = texts.unique(dim=0, return_counts=True)
    expected = policies.token_log_probs(policy, prompts[: len(shown)], shown).sum(dim=1).exp()
    often = expected > 0.005
    assert often.sum() > 3
    torch.testing.assert_close(counts[often] / 20_000, expected[often].detach(), atol=0.004, rtol=0)


def test_writing_needs_no_more_than_the_longest_text(policy):
    torch.nn.init.zeros_(policy.tokens.weight)
    policy.tokens.weight.data[EOS] = 100.0 * policy.norm.weight.sign()
    texts = policies.write(policy, PROMPTS, 6, torch.Generator().manual_seed(0))
    assert texts.shape == (3, 6)


def test_imitation_is_the_mean_over_tokens(policy):
    log_p = policies.token_log_probs(policy, PROMPTS, TEXTS)
    loss = policies.imitation_loss(policy, {"prompts": PROMPTS, "texts": TEXTS})
    torch.testing.assert_close(loss, -log_p.sum() / 8)
