"""An adapter's files as they are read: the card that says what it is, and its tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from trainables.naming import expect

ADAPTER_WEIGHTS = "adapter.safetensors"
ADAPTER_CARD = "adapter.json"
ADAPTER_FORMAT = 1
CARD_KEYS = frozenset({"format", "strategy", "hyperparameters", "base"})


def read_card(folder: Path) -> dict[str, Any]:
    """What an adapter folder says of itself.

    Raises:
        FileNotFoundError: the folder has no card.
        ValueError: the card is not JSON of the expected form.
    """
    file = folder / ADAPTER_CARD
    if not file.exists():
        raise FileNotFoundError(
            f"`adapter` must be a folder with an {ADAPTER_CARD}, but got {str(folder)!r}. "
            "Give a trial's adapter folder."
        )
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"`{ADAPTER_CARD}` must be JSON in UTF-8, but got {str(file)!r}, of which {error}. Export the adapter again."
        ) from error
    return _checked_card(card)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """An adapter folder's tensors; never by pickle."""
    try:
        return load_file(folder / ADAPTER_WEIGHTS)
    except (SafetensorError, FileNotFoundError) as error:
        raise ValueError(
            f"`{ADAPTER_WEIGHTS}` must be a safetensors file, but got {type(error).__name__} in {str(folder)!r}. "
            "Export the adapter again."
        ) from error


def _checked_card(card: Any) -> dict[str, Any]:
    remedy = "Export the adapter again."
    lacking = sorted(CARD_KEYS - card.keys()) if isinstance(card, dict) else sorted(CARD_KEYS)
    rule = f"`{ADAPTER_CARD}` must name {', '.join(sorted(CARD_KEYS))}"
    expect(not lacking, rule, f"none of {lacking}", remedy)
    rule = f"`{ADAPTER_CARD}` must name its strategy"
    expect(isinstance(card["strategy"], str), rule, repr(card["strategy"]), remedy)
    rule = f"`{ADAPTER_CARD}` must give hyperparameters by name"
    expect(isinstance(card["hyperparameters"], dict), rule, repr(card["hyperparameters"]), remedy)
    names_base = isinstance(card["base"], dict) and {"name", "weights_hash"} <= card["base"].keys()
    expect(names_base, f"`{ADAPTER_CARD}` must name its base and the hash of its weights", repr(card["base"]), remedy)
    rule = f"`format` must be {ADAPTER_FORMAT}"
    expect(card["format"] == ADAPTER_FORMAT, rule, repr(card["format"]), "Use the version that wrote the adapter.")
    return dict(card)
