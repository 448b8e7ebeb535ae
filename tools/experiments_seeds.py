"""`bert-manual` and `gpt-manual`, trained again with other seeds and measured by the cells of their chapters."""

import ast
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

from chapter import Chapter
from execute import find
from experiments import RUNS, machine, store, stored
from torch import nn

from ditbook import results, weights
from ditbook.training import recipes
from ditbook.training.loop import train

SEEDS = (0, 1, 2)  # the first is that of the weights that ship
Reports = dict[str, Callable[[dict[str, Any]], dict[str, Any]]]  # of a cell: from the variables to what is stored


BERT: Reports = {  # what chapter 4 reports of `bert-manual`, after which cell
    "ch04-32": lambda v: {
        "gaps": v["right"].mean().item(),
        "gaps, in the first five": (v["p"].topk(5).indices == v["truth"][:, None]).any(1).float().mean().item(),
    },
    "ch04-35": lambda v: {"pairs": v["of_bert"]},
    "ch04-36": lambda v: {"order": v["order_right"].mean().item()},
}
GPT: Reports = {  # what chapter 5 reports of `gpt-manual`
    "ch05-27": lambda v: {
        "perplexity, held out": v["on_held_out"]["GPT, trained weights"],
        "perplexity, seen": v["on_seen"]["GPT, trained weights"],
    },
    "ch05-38": lambda v: {
        "next paragraph": v["answers"]["its own prompt"][0],
        "next paragraph, without the second term": v["answers"]["its own prompt"][1],
        "next paragraph, another prompt": v["answers"]["another question's prompt"][0],
    },
    "ch05-40": lambda v: {"title": v["own"], "title, another passage": v["other"]},
    "ch05-59": lambda v: {
        "tuned": v["fraction"]["pre-trained, then tuned"],
        "tuned, names of lessons": sum(v["groups"]["some"]),
        "tuned, other names": sum(v["groups"]["no"]),
    },
    "ch05-61": lambda v: {"tuned, perplexity": v["forgot"]["pre-trained, then tuned"]},
    "ch05-68": lambda v: {"ranks of facts": [rank for _, rank in v["known"][1]]},
    "ch05-70": lambda v: {
        f"names, {topics}": v["at_names"](v["trained"], texts)[1] for topics, texts in v["names_of"].items()
    },
}


def again(name: str, chapter: str, reports: Reports) -> None:
    """Train the weights `name` with each seed but the first, and measure them and the shipped ones."""
    for seed in SEEDS:
        if not stored(name, {"seed": seed}):
            model = weights.load(name) if seed == SEEDS[0] else trained(name, seed)
            store(name, {"seed": seed} | measured(chapter, reports, name, model) | machine())


def trained(name: str, seed: int) -> nn.Module:
    """The model of a recipe, trained with another seed and rounded as the weights that ship are."""
    recipe = recipes.load(name)
    recipe = replace(recipe, training=replace(recipe.training, seed=seed))
    path = RUNS / f"{name}-{seed}.safetensors"
    found = train(recipes.started(recipe), recipe.task.loss, recipe.task.data(), recipe.training, path=path)
    return found.ema.to(recipe.dtype).float().eval().requires_grad_(False)


def measured(chapter: str, reports: Reports, name: str, model: nn.Module) -> dict[str, Any]:
    """What the cells of a chapter find with `model` in place of the weights `name`.

    Left out is what they show, and their asserts, which hold for the weights that ship.
    """
    variables: dict[str, Any] = {}
    found: dict[str, Any] = {}
    load, rows = weights.load, results.load
    with (
        mock.patch.object(weights, "load", lambda wanted: model if wanted == name else load(wanted)),
        mock.patch.object(results, "load", lambda wanted: [] if wanted == name else rows(wanted)),
    ):
        for cell in Chapter.read(find(chapter)).code:
            if "%pip" not in cell["source"]:
                exec(compile(Silent().visit(ast.parse(cell["source"])), cell["id"], "exec"), variables)
            found |= reports.get(cell["id"], lambda _: {})(variables)
            if cell["id"] == max(reports):
                break
    return found


class Silent(ast.NodeTransformer):
    """Takes asserts, printed lines, tables and shown figures out of a program."""

    def visit_Assert(self, node: ast.Assert) -> ast.Pass:
        return ast.copy_location(ast.Pass(), node)

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        shows = ast.unparse(node).startswith(("print(", "plotting.table(", "plotting.show("))
        return ast.copy_location(ast.Pass(), node) if shows else node


EXPERIMENTS = {
    "bert-manual": partial(again, "bert-manual", "04", BERT),
    "gpt-manual": partial(again, "gpt-manual", "05", GPT),
}
