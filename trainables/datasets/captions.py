"""Prompts in the words of "Pixels under Pressure": "Chest X-ray of a subject with ..."."""

from __future__ import annotations

from collections.abc import Sequence

TEMPLATE = "Chest X-ray of a subject with {findings}"
VIEW_WORDS = {"PA": "posteroanterior view", "AP": "anteroposterior view"}


def caption(conditions: Sequence[str], *, view: str | None = None) -> str:
    """The prompt of a radiograph with these findings.

    Args:
        conditions: findings, for example ("Cardiomegaly", "Pleural Effusion"); their order is kept.
        view: "PA" or "AP" to name the view as well.

    Returns:
        For example "Chest X-ray of a subject with cardiomegaly and pleural effusion".

    Raises:
        ValueError: no finding is given, or the view is unknown.

    Source: Pixels under Pressure, section on data (the template); the view is ours.
    """
    if not conditions:
        raise ValueError("`conditions` must name at least one finding, but got none. Use 'No Finding'.")
    prompt = TEMPLATE.format(findings=_enumeration([condition.lower() for condition in conditions]))
    return prompt if view is None else f"{prompt}, {_view_words(view)}"


def _enumeration(words: Sequence[str]) -> str:
    if len(words) == 1:
        return words[0]
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _view_words(view: str) -> str:
    if view not in VIEW_WORDS:
        raise ValueError(f"`view` must be one of {', '.join(VIEW_WORDS)}, but got {view!r}")
    return VIEW_WORDS[view]
