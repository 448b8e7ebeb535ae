"""How datasets call the columns `image`, `label` and `caption`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

# Other names of the three columns, by rank: those of the second are taken where there are none of the first. Capitals
# make no difference.
OTHER_NAMES = {
    "image": (("img", "picture", "photo"),),
    "label": (("labels", "fine_label", "coarse_label", "class", "target"),),
    "caption": (
        ("text", "captions", "sentence", "sentences"),
        ("texts", "prompt", "prompts", "description", "descriptions", "alt_text"),
    ),
}
logger = logging.getLogger(__name__)


def chosen(names: Sequence[str], wanted: Iterable[str] = OTHER_NAMES) -> dict[str, str]:
    """The column that holds each of the wanted ones, where there is one: its own name goes before the others.

    Args:
        names: the columns of a dataset.
        wanted: of "image", "label" and "caption".

    Returns:
        The column of the dataset by the standard name.

    Raises:
        ValueError: two columns of the same rank could be the same one.
    """
    found = {}
    for name in wanted:
        ranks = ((name,), *OTHER_NAMES[name])
        fitting = [column for column in names if column == name] or next(
            filter(None, ([column for column in names if column.lower() in rank] for rank in ranks)), []
        )
        if len(fitting) > 1:
            raise ValueError(
                f"the {name} could be any of {', '.join(fitting)}; the columns found are {listed(names)}. Rename one "
                f"to `{name}`, in the files or by `dataset.rename_column` before `user_images.standard_columns`"
            )
        if fitting:
            found[name] = fitting[0]
    return found


def report(kept: Mapping[str, str], names: Iterable[str]) -> None:
    """Log which of the columns `names` are kept, as `chosen` found them, and which are dropped, if any is."""
    dropped = [name for name in names if name not in kept.values()]
    if dropped:
        captions = ", ".join(chain(*OTHER_NAMES["caption"]))
        advice = "" if "caption" in kept else f"; a caption must be named caption, {captions}"
        logger.warning("columns kept: %s; dropped: %s%s", listed(kept.values()), listed(dropped), advice)


def listed(names: Iterable[str]) -> str:
    """Columns for a message."""
    return ", ".join(f"`{name}`" for name in names) or "none"
