"""The cells of chapter 5 that need GPT-2 itself, with a small random one that transformers saved in its place."""

import ast
from types import SimpleNamespace

import pytest
import torch
from build_book import ROOT
from chapter import Chapter

TEXTS = ["a list is mutable .", "a tuple is not .", "the set has no order .", "a function returns a value ."]
LONG = " ".join(TEXTS * 40)


@pytest.fixture
def saved(tmp_path):
    """A folder with a random GPT-2 and a tokenizer, as `save_pretrained` writes them, and the model."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(TEXTS, vocab_size=300)
    GPT2TokenizerFast(tokenizer_object=trained._tokenizer).save_pretrained(tmp_path)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_positions=128, n_embd=24, n_layer=2, n_head=4)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path)
    return SimpleNamespace(folder=tmp_path, model=model)


@pytest.fixture
def chapter(saved, monkeypatch):
    """Imports and functions of the chapter, short texts in place of the manual's, and the cells to run."""
    cells = {cell["id"]: cell["source"] for cell in Chapter.read(ROOT / "notebooks/05_gpt.ipynb").code}
    nodes = [node for source in cells.values() if "%pip" not in source for node in ast.parse(source).body]
    kept = ast.FunctionDef | ast.Import | ast.ImportFrom
    names = {"true": TEXTS, "others": TEXTS[::-1], "prompts": TEXTS, "shuffled": TEXTS[1:] + TEXTS[:1]}
    names |= {"passages": TEXTS, "options": [["a list", "a set", "a tuple", "a value"]] * 4}
    names |= {"capitals": [f" {chr(65 + i)}" for i in range(16)], "held_out_text": LONG}
    names |= {"facts": [("a list is", " mutable"), ("the set has no", " order")]}
    exec(compile(ast.Module([node for node in nodes if isinstance(node, kept)], []), "chapter 5", "exec"), names)
    names |= {"hf_hub_download": lambda name, part, **_: saved.folder / part, "DOWNLOAD": False, "device": "cpu"}
    names["large"], names["words"] = names["pretrained"](saved.folder)
    tree = ast.parse(cells["ch05-75"])
    for node in ast.walk(tree):
        if isinstance(node, ast.If):  # what holds for GPT-2 need not hold for a random model
            node.body = [inner for inner in node.body if not isinstance(inner, ast.Assert)]
    return SimpleNamespace(names=names, last=compile(tree, "ch05-75", "exec"))


def test_the_loaded_model_is_that_of_transformers(chapter, saved):
    tokens = torch.tensor([chapter.names["words"].encode(LONG)])[:, :100]
    torch.testing.assert_close(chapter.names["large"](tokens), saved.model(tokens).logits)


def test_perplexity_and_facts_are_those_of_transformers(chapter, saved, capsys):
    exec(chapter.last, chapter.names)
    printed = capsys.readouterr().out
    sentence = "The capital of France is Paris."
    tokens = torch.tensor([chapter.names["words"].encode(sentence)])
    loss = saved.model(tokens, labels=tokens).loss
    per_character = (loss * (tokens.shape[1] - 1) / (len(sentence) - 1)).exp()
    wanted = f"a sentence: ≈ {loss.exp():.1f} per token, ≈ {per_character:.2f} per character"
    assert f"perplexity of {wanted}" in printed
    for start, answer in chapter.names["facts"]:
        read, after = (chapter.names["words"].encode(text) for text in (start, start + answer))
        p = saved.model(torch.tensor([read])).logits[0, -1].softmax(dim=-1)
        rank = int((p > p[after[len(read)]]).sum()) + 1
        assert f"{answer!r}: rank ≈ {rank}, probability ≈ {p[after[len(read)]]:.2f}" in printed
    for what in ("next paragraph: ≈", "titles: ≈", "mappings, 16 examples: ≈"):
        assert what in printed


def test_without_a_network_the_cell_says_so(chapter, capsys):
    exec(chapter.last, chapter.names | {"large": None})
    assert capsys.readouterr().out == "no GPT-2, nothing measured\n"
