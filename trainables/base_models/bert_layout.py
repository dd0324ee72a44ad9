"""Folders of a BERT-type encoder's layout with random weights, as the hub has them."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import BertConfig, BertForMaskedLM

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = tuple(string.ascii_lowercase + string.digits)
WORDS = ("chest", "film", "with", "edema", "effusion", "a", "blue", "red", "ring", "circle")


def write_bert_layout(
    folder: Path,
    *,
    hidden_size: int = 64,
    num_positions: int = 512,
    words: Sequence[str] = WORDS,
    seed: int = 0,
) -> None:
    """Write config.json, model.safetensors (a masked language model's), vocab.txt and tokenizer_config.json.

    Args:
        folder: where to write; made if need be.
        hidden_size: a multiple of 4.
        num_positions: the longest text, in tokens.
        words: in the vocabulary beside letters and digits, of which any other word is made up.
        seed: of the random weights.
    """
    continued = tuple(f"##{letter}" for letter in LETTERS)
    vocabulary = list(dict.fromkeys((*SPECIAL, *LETTERS, *continued, *words)))
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=num_positions,
        initializer_range=0.2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertForMaskedLM(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    tokenizer = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer) + "\n")
