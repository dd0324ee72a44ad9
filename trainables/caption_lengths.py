"""How long captions are for the text encoder of a base model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from transformers import AutoTokenizer

from trainables.base_models.models import component_on_meta, num_positions, resolve_base
from trainables.datasets.captions import cut_captions


def caption_note(base: str, captions: Sequence[str]) -> str:
    """A sentence on the captions that the base model's text encoder does not see to their end; empty without any.

    Args:
        base: `sd15`, `mini`, a hub id or a local folder.
        captions: of all films.

    Raises:
        FileNotFoundError: the base model cannot be had.
    """
    folder = resolve_base(base)
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    most = min(tokenizer.model_max_length, num_positions(component_on_meta(folder, "text_encoder")))
    return cut_captions(captions, lambda text: tokenizer(text, verbose=False).input_ids, most)


@cache
def token_counter(base: str) -> Callable[[str], int]:
    """Counts the tokens of a text as the base model's text encoder takes them, with the marks at both ends.

    Args:
        base: `sd15`, `mini`, a hub id or a local folder.

    Raises:
        FileNotFoundError: the base model cannot be had.
    """
    tokenizer = AutoTokenizer.from_pretrained(resolve_base(base) / "tokenizer")
    return lambda text: len(tokenizer(text, verbose=False).input_ids)
