"""Text encoders that a U-Net can be conditioned on: CLIP's, and BERT-type ones that take its place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerBase,
    RobertaModel,
)
from transformers.utils import logging as transformers_logging

from trainables.base_models.meta import on_meta

BERT_TYPES: Final[dict[str, Any]] = {"bert": BertModel, "roberta": RobertaModel}
"""Classes of text encoders, by the `model_type` of their config.json."""
CLIP_TYPES: Final = ("clip_text_model", "clip")
HUB_ENCODERS: Final = ("StanfordAIMI/RadBERT", "cambridgeltl/SapBERT-from-PubMedBERT-fulltext")
"""Text encoders of the published studies; each has BERT-base's shape."""
VOCABULARIES: Final = ("vocab.txt", "vocab.json", "tokenizer.json")
FILES: Final = ("*.json", "*.txt", "*.safetensors")
UNCOUNTED: Final = "none"


@dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """A text encoder with its tokenizer.

    Attributes:
        module: turns token ids into the states that the U-Net attends to, float[n, t, 768].
        tokenizer: splits prompts into tokens of the encoder's vocabulary.
        identity: hash of its weights and vocabulary.
    """

    module: nn.Module
    tokenizer: PreTrainedTokenizerBase
    identity: str


def load_bert(encoder: str, *, num_tokens: int, device: torch.device) -> TextEncoder:
    """Load a BERT-type encoder in float32, frozen, in evaluation mode and without its pooler.

    Prompts are padded to `num_tokens`; as in its pretraining, no token attends to the padding.

    Args:
        encoder: a hub id or a local folder, with the weights as safetensors.
        num_tokens: length of the prompts.
        device: where to; on the meta device no weights are read, but for their hash.

    Raises:
        FileNotFoundError: there is no such folder, the hub cannot be reached, or a file is missing.
        ValueError: it is no BERT-type encoder, takes fewer tokens, or its weights are damaged.
    """
    folder = resolve_encoder(encoder)
    config = bert_config(folder, num_tokens)
    _expect_weights(folder, encoder)
    tokenizer = _tokenizer(folder, config, num_tokens)
    module = build_bert(config) if device.type == "meta" else _read_bert(folder, config).to(device)
    return TextEncoder(module=module, tokenizer=tokenizer, identity=encoder_hash(folder))


def bert_to_count(encoder: str, tokenizer: PreTrainedTokenizerBase) -> TextEncoder:
    """A BERT-type encoder on the meta device with its tokenizer, without network or weights.

    Where they are not on this machine, those of the studies are taken to have the shape of BERT-base with 30,522
    tokens, and the tokenizer stays.

    Args:
        encoder: a hub id or a local folder.
        tokenizer: the one that the encoder's takes the place of; prompts have its length.

    Raises:
        FileNotFoundError: its configuration or vocabulary is not known here.
    """
    num_tokens = tokenizer.model_max_length
    try:
        folder = resolve_encoder(encoder, local_only=True)
        config = bert_config(folder, num_tokens)
        tokenizer = _tokenizer(folder, config, num_tokens)
    except FileNotFoundError:
        if encoder not in HUB_ENCODERS:
            raise
        config = BertConfig()
    return TextEncoder(module=build_bert(config), tokenizer=tokenizer, identity=UNCOUNTED)


def resolve_encoder(encoder: str, *, local_only: bool = False) -> Path:
    """The local folder of an encoder, fetched from the hub where need be.

    Raises:
        FileNotFoundError: it is neither a folder nor a hub id that can be reached.
    """
    folder = Path(encoder).expanduser()
    if folder.is_dir():
        return folder
    if encoder.count("/") != 1 or encoder.startswith((".", "/", "~")):
        raise FileNotFoundError(
            f"`encoder` must be a hub id (owner/name) or an existing folder, but got {encoder!r}. "
            f"Check the spelling of the folder, or try {HUB_ENCODERS[0]}."
        )
    try:
        return Path(snapshot_download(encoder, allow_patterns=list(FILES), local_files_only=local_only))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"`encoder` {encoder!r} could not be had from the model hub ({type(error).__name__}). Connect to the network, "
            "or download it elsewhere and give its folder."
        ) from error


def bert_config(folder: Path, num_tokens: int) -> Any:
    """An encoder folder's configuration, checked, and with what diffusers' pipeline needs to mask the padding."""
    kind = model_type(folder)
    if kind not in BERT_TYPES:
        raise ValueError(
            f"`encoder` must be a BERT-type encoder ({', '.join(BERT_TYPES)}), but got {kind!r} in {str(folder)!r}. "
            f"Try {HUB_ENCODERS[0]}."
        )
    config = AutoConfig.from_pretrained(folder)
    config.use_attention_mask = True
    # RoBERTa's positions count from after the padding's id
    num_positions = config.max_position_embeddings - (config.pad_token_id + 1 if kind == "roberta" else 0)
    if num_positions < num_tokens:
        raise ValueError(
            f"`encoder` must take prompts of {num_tokens} tokens, but got {num_positions} positions in {str(folder)!r}. "
            "Use an encoder for longer texts."
        )
    return config


def model_type(folder: Path) -> str:
    """What a folder's config.json says that its model is.

    Raises:
        FileNotFoundError: the folder has none.
        ValueError: it is not JSON.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"`encoder` must have a config.json, but got none in {str(folder)!r}. Give its folder.")
    try:
        return str(json.loads(file.read_text()).get("model_type"))
    except (json.JSONDecodeError, AttributeError) as error:
        raise ValueError(f"`config.json` must be a JSON object, but got {str(file)!r}. Save the model anew.") from error


def build_bert(config: Any) -> nn.Module:
    """A BERT-type encoder on the meta device."""
    with on_meta():
        module: nn.Module = BERT_TYPES[config.model_type](config, add_pooling_layer=False)
    return module.eval().requires_grad_(False)


def read_pipeline_bert(folder: Path) -> nn.Module | None:
    """The BERT-type text encoder of a pipeline folder, or nothing where it is CLIP's, which diffusers reads itself.

    Diffusers would give the encoder a pooler with random weights, which nothing uses.

    Args:
        folder: the text encoder's.

    Raises:
        ValueError: it is neither CLIP's nor a BERT-type one.
    """
    return _read_bert(folder, AutoConfig.from_pretrained(folder)) if _pipeline_type(folder) in BERT_TYPES else None


def pipeline_encoder_on_meta(folder: Path) -> nn.Module:
    """The text encoder of a pipeline folder on the meta device, from its configuration alone.

    Raises:
        ValueError: it is neither CLIP's nor a BERT-type one.
    """
    if _pipeline_type(folder) in BERT_TYPES:
        return build_bert(AutoConfig.from_pretrained(folder))
    with on_meta():
        clip: nn.Module = CLIPTextModel(CLIPTextConfig.from_pretrained(folder))
    return clip


def _pipeline_type(folder: Path) -> str:
    kind = model_type(folder)
    if kind not in BERT_TYPES and kind not in CLIP_TYPES:
        raise ValueError(
            f"`text_encoder` of the base must be of type {', '.join([CLIP_TYPES[0], *BERT_TYPES])}, but got {kind!r}. "
            "Use a base of Stable Diffusion 1.5's layout."
        )
    return kind


def _read_bert(folder: Path, config: Any) -> nn.Module:
    try:
        with _quiet():  # heads of pretraining tasks are in the file and not wanted; what is wanted is checked below
            module, report = BERT_TYPES[config.model_type].from_pretrained(
                folder,
                config=config,
                add_pooling_layer=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"`encoder` must have whole weights that fit its config.json, but got {str(folder)!r}: {error}. "
            "Copy or download it anew."
        ) from error
    lacking = sorted(report["missing_keys"])
    if lacking:
        raise ValueError(
            f"`encoder` must have all weights of {type(module).__name__}, but got none for {lacking[:3]} in {str(folder)!r}. "
            "Save the encoder anew with `save_pretrained`."
        )
    encoder: nn.Module = module
    return encoder.eval().requires_grad_(False)


@contextmanager
def _quiet() -> Iterator[None]:
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def _expect_weights(folder: Path, encoder: str) -> None:
    if not list(folder.glob("*.safetensors")):
        another = next(other for other in reversed(HUB_ENCODERS) if not encoder.endswith(other))
        others = sorted(file.name for file in folder.iterdir() if file.suffix in (".bin", ".pt", ".h5", ".msgpack"))
        raise FileNotFoundError(
            f"`encoder` must have its weights as *.safetensors, but got {others or 'none'} in {str(folder)!r}. "
            "Pickled weights can run code; convert them once where you trust them, with "
            "`AutoModel.from_pretrained(ENCODER).save_pretrained(FOLDER)`, and give that folder with its tokenizer, "
            f"or try {another}."
        )


def _tokenizer(folder: Path, config: Any, num_tokens: int) -> PreTrainedTokenizerBase:
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise FileNotFoundError(
            f"`encoder` must have its vocabulary ({', '.join(VOCABULARIES)}), but got none in {str(folder)!r}. "
            "Save its tokenizer there with `save_pretrained`."
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=num_tokens)
    if len(tokenizer) > config.vocab_size:
        raise ValueError(
            f"`encoder` must have an embedding for each of its tokenizer's {len(tokenizer)} tokens, but got {config.vocab_size} "
            f"in {str(folder)!r}. Put the encoder's own tokenizer beside it."
        )
    return tokenizer


@lru_cache(maxsize=8)
def encoder_hash(folder: Path) -> str:
    """SHA-256 over an encoder folder's weights and vocabulary, the first 16 hex digits."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    vocabulary = AutoTokenizer.from_pretrained(folder).get_vocab()
    digest.update(json.dumps(sorted(vocabulary.items())).encode())
    return digest.hexdigest()[:16]
