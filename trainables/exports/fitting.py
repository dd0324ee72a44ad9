"""What a format can hold of an adapter, and which format can where it cannot."""

from __future__ import annotations

from collections.abc import Collection

from trainables.base_models.models import DiffusionModels
from trainables.strategies import Strategy
from trainables.strategies.textual_inversion import extended_embeddings


def held_by_tokens(models: DiffusionModels) -> list[str]:
    """How the names of tensors begin that new tokens hold."""
    return [f"text_encoder.{path}." for path, _ in extended_embeddings(models.text_encoder)]


def expect_only(
    paths: Collection[str], models: DiffusionModels, strategy: Strategy, *, rule: str, use: str = "pipeline"
) -> None:
    """Refuse an adapter with a tensor that none of these beginnings has.

    Args:
        paths: beginnings of the names that the format holds.
        models: with the strategy attached.
        strategy: whose tensors they are.
        rule: what the format must have.
        use: the formats that hold it.

    Raises:
        ValueError: there is one.
    """
    beginnings = tuple(paths)
    left = [path for path in strategy.tensors(models) if not path.startswith(beginnings)]
    if left or not beginnings:
        raise cannot_hold(rule, strategy, left[0] if left else "", use)


def cannot_hold(rule: str, strategy: Strategy, path: str, use: str) -> ValueError:
    """The error for an adapter that a format cannot hold.

    Args:
        rule: what the format must have.
        strategy: what was trained.
        path: of a tensor that it cannot hold, if one is to be named.
        use: the formats that hold it.
    """
    named = f", which trains {path}" if path else ""
    return ValueError(f"{rule}, but got an adapter by {strategy.name!r}{named}. Export it with --format {use}.")
