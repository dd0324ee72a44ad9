"""Loading a base model: the bundled mini, SD 1.5 by hub id, or a local folder of the same layout."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from trainables.base_models.checking import (
    PARTS,
    PIPELINE_CARD,
    expect_architecture,
    expect_configurations,
    expect_files,
    weight_files,
)
from trainables.base_models.copying import with_tensors
from trainables.base_models.layouts import plain_folder, state_of
from trainables.base_models.meta import on_meta
from trainables.base_models.text_encoders import pipeline_encoder_on_meta, read_pipeline_bert
from trainables.numerics import FULL, Numerics

MINI_FOLDER = Path(__file__).parent / "mini"
HUB_IDS = {"sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5"}
COMPONENTS = PARTS
UNFELT = frozenset({"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"})
"""Entries of a configuration that say where and how a text encoder was saved, and not how it computes in float32."""
PLACEHOLDERS = "placeholders.json"
"""File of a pipeline folder whose tokenizer has new tokens: it names them by the words that they stand for."""


@dataclass(frozen=True, kw_only=True)
class BaseIdentity:
    """Which base model an adapter belongs to.

    Attributes:
        name: as the user gave it: `mini`, `sd15`, a hub id or a folder.
        source: hub id, or name of the folder, that the weights were read from.
        weights_hash: hash of all weights, which tells two bases apart wherever they lie.
    """

    name: str
    source: str
    weights_hash: str


@dataclass(kw_only=True)
class DiffusionModels:
    """The parts of a latent diffusion model that strategies adapt.

    `base` stays what was loaded, however the weights change.

    Attributes:
        unet: predicts the noise in latents, from the timestep and the prompt's states.
        vae: encodes images to latents and decodes them.
        text_encoder: turns token ids into the states that the U-Net attends to: CLIP, or a BERT in its place.
        tokenizer: splits prompts into the text encoder's tokens.
        scheduler_config: the base's noise schedule, as diffusers' schedulers take it.
        base: which base model the parts were loaded from.
        vae_hash: hash of the autoencoder's weights as they were loaded; empty where they were not.
        text_encoder_hash: the same of the base's own text encoder.
        text_source: identity of a text encoder that took the place of the base's own; empty: it is the base's.
        placeholders: new tokens by the words of a prompt that they stand for.
        numerics: what U-Net and autoencoder are given samples in.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    scheduler_config: Mapping[str, Any] = field(repr=False)
    base: BaseIdentity
    vae_hash: str = ""
    text_encoder_hash: str = ""
    text_source: str = ""
    placeholders: Mapping[str, str] = field(default_factory=dict)
    numerics: Numerics = FULL

    def component(self, name: str) -> nn.Module:
        """The part called `unet`, `vae` or `text_encoder`."""
        if name not in COMPONENTS:
            raise ValueError(f"`component` must be one of {', '.join(COMPONENTS)}, but got {name!r}")
        module: nn.Module = getattr(self, name)
        return module

    def components(self) -> dict[str, nn.Module]:
        """All trainable parts by name."""
        return {name: self.component(name) for name in COMPONENTS}

    def fresh(self) -> DiffusionModels:
        """An independent copy of the weights; tokenizer and configuration are shared."""
        copies: dict[str, Any] = {
            name: with_tensors(module, Tensor.clone) for name, module in self.components().items()
        }
        return replace(self, **copies)

    def sharing(self) -> DiffusionModels:
        """Modules of its own over the same tensors, for an adapter to be attached to: at once, and without a copy.

        What is put in place of modules or tensors there is in no one else's way. None may write into the shared ones: before
        a training, `own_trained` is called.
        """
        shared: dict[str, Any] = {
            name: with_tensors(each, lambda same: same) for name, each in self.components().items()
        }
        return replace(self, **shared)

    def own_trained(self) -> DiffusionModels:
        """Give the parameters that train memory of their own, in place; what is frozen goes on sharing its."""
        for module in self.components().values():
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.clone()
        return self

    def to(self, device: torch.device | str) -> DiffusionModels:
        """Move every part that has its weights to the device, in place."""
        for name, module in self.components().items():
            if self.is_loaded(name):
                module.to(device)
        return self

    def computing_in(self, numerics: Numerics) -> DiffusionModels:
        """Bring U-Net and autoencoder into a precision and layout to sample in, in place, before anything is attached.

        The text encoder computes once for each prompt, and stays in float32. What is attached later keeps the precision
        that it has: its layers cast it to that of what they are given.
        """
        layout: Any = {"dtype": numerics.dtype, "memory_format": numerics.memory_format}
        for module in (self.unet, self.vae):
            # Not by diffusers' own, which warns of every cast.
            nn.Module.to(module, **layout)
        self.numerics = numerics
        return self

    def is_loaded(self, name: str) -> bool:
        """Whether a part has its weights, and not only its configuration and shapes."""
        return not next(self.component(name).parameters()).is_meta

    @property
    def text_hash(self) -> str:
        """Identity of the text encoder before training, by weights and configuration: what a prompt's tokens become."""
        config: dict[str, Any] = self.text_encoder.config.to_dict()
        felt = {name: value for name, value in config.items() if name not in UNFELT}
        text = json.dumps([self.text_source or self.text_encoder_hash, felt], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def spelled(self, prompt: str) -> str:
        """A prompt with the words that have a token of their own replaced by it, the longest first.

        Tokens that are in it already stay; words inside them are not replaced.
        """
        words = sorted(self.placeholders, key=len, reverse=True)
        if not words:
            return prompt
        tokens = {word.lower(): token for word, token in self.placeholders.items()}
        written = [re.escape(token) for token in tokens.values()]
        pattern = re.compile(
            "|".join([*written, *(rf"(?<!\w){re.escape(word)}(?!\w)" for word in words)]), re.IGNORECASE
        )
        return pattern.sub(lambda match: tokens.get(match.group().lower(), match.group()), prompt)

    def for_films_of(self, resolution_px: int | None) -> DiffusionModels:
        """Have films of another side generated and counted with, in place; None: of the side that is set already.

        The U-Net and the autoencoder are convolutional and take any side; their weights stay as they are.

        Raises:
            ValueError: no whole number of latents makes up the side.
        """
        if resolution_px is None:
            return self
        if not isinstance(resolution_px, int) or resolution_px < 1 or resolution_px % self.latent_factor:
            raise ValueError(
                f"`resolution_px` must be a multiple of {self.latent_factor}, the pixels of a latent of base "
                f"{self.base.name!r}, but got {resolution_px!r}. Try {8 * self.latent_factor}."
            )
        self.unet.register_to_config(sample_size=resolution_px // self.latent_factor)
        return self

    @property
    def resolution_px(self) -> int:
        """Side of the images that are generated: that which the base was trained on, unless another was set."""
        return int(self.unet.config.sample_size) * self.latent_factor

    @property
    def latent_factor(self) -> int:
        """How many pixels one latent position spans, on a side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))


def text_states(text_encoder: nn.Module, token_ids: Tensor) -> Tensor:
    """Hidden states of prompts, float[n, t, d], as diffusers' pipeline computes them from token ids, int64[n, t]."""
    config: Any = text_encoder.config
    mask = token_ids.ne(config.pad_token_id) if getattr(config, "use_attention_mask", False) else None
    states: Tensor = text_encoder(token_ids, attention_mask=mask)[0]
    return states


def num_positions(text_encoder: nn.Module) -> int:
    """How many tokens a text encoder takes; a tokenizer's own file may be absent or name more."""
    config: Any = text_encoder.config
    return int(config.max_position_embeddings)


def states_width(unet: UNet2DConditionModel) -> int:
    """How wide the prompts' states are that a U-Net takes."""
    config: Any = unet.config
    return int(config.encoder_hid_dim or config.cross_attention_dim)


def load_base(base: str, components: Collection[str] = COMPONENTS) -> DiffusionModels:
    """Load a base model in float32, frozen and in evaluation mode.

    Args:
        base: `mini` (bundled), `sd15` (its hub id), any hub id, a folder of Stable Diffusion 1.5's layout, or a file that
            holds such a model.
        components: the parts whose weights are read; the others have configuration and shapes only (meta device).

    Raises:
        FileNotFoundError: `base` is neither known, nor such a folder or file, nor a hub id that can be reached.
        ValueError: it cannot work; the message says why.
    """
    folder = resolve_base(base)
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    ours = {name: component_on_meta(folder, name) for name in COMPONENTS if name not in components}
    if "text_encoder" not in ours and (bert := read_pipeline_bert(folder / "text_encoder")):
        ours["text_encoder"] = bert
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, safety_checker=None, requires_safety_checker=False,
        feature_extractor=None, image_encoder=None, **ours,
    )  # fmt: skip
    models = DiffusionModels(
        unet=pipeline.unet,
        vae=pipeline.vae,
        text_encoder=pipeline.text_encoder,
        tokenizer=pipeline.tokenizer,
        scheduler_config=dict(pipeline.scheduler.config),
        base=BaseIdentity(name=base, source=HUB_IDS.get(base, Path(base).name), weights_hash=weights_hash(folder)),
        vae_hash=weights_hash(folder, ("vae",)),
        text_encoder_hash=weights_hash(folder, ("text_encoder",)),
        placeholders=_placeholders(folder),
    )
    for part in (models.unet, models.vae):  # diffusers would write the folder into whatever is saved of them
        part.register_to_config(_name_or_path=models.base.source)
    models.tokenizer.model_max_length = min(models.tokenizer.model_max_length, num_positions(models.text_encoder))
    for module in models.components().values():
        module.eval().requires_grad_(False)
    return models


def _placeholders(folder: Path) -> dict[str, str]:
    file = folder / PLACEHOLDERS
    placeholders: dict[str, str] = json.loads(file.read_text()) if file.is_file() else {}
    return placeholders


def parts_on_meta(folder: Path) -> dict[str, nn.Module]:
    """The parts of a pipeline folder on the meta device, from their configurations alone, which fit each other.

    Raises:
        FileNotFoundError: the folder lacks a part's config.json.
        ValueError: a configuration is damaged or another model's, or the parts do not belong together.
    """
    expect_configurations(folder)
    try:
        parts = {name: component_on_meta(folder, name) for name in COMPONENTS}
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"`base` must hold the configurations of Stable Diffusion 1.5's classes, but got {str(folder)!r}: {error}. "
            "Save the folder anew with `StableDiffusionPipeline.save_pretrained`."
        ) from error
    expect_architecture(parts, folder)
    return parts


def component_on_meta(folder: Path, name: str) -> nn.Module:
    """A part of a pipeline folder on the meta device, from its configuration alone."""
    if name == "text_encoder":
        return pipeline_encoder_on_meta(folder / name)
    kind = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[name]
    with on_meta():
        module: nn.Module = kind.from_config(kind.load_config(folder, subfolder=name))
    return module


def base_resolution_px(base: str) -> int:
    """Side of the images that a base model was trained on, from its configuration alone."""
    folder = resolve_base(base)
    unet, vae = (json.loads((folder / name / "config.json").read_text()) for name in ("unet", "vae"))
    return int(unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1))


def base_num_timesteps(base: str) -> int:
    """How many steps a base model's noise schedule has, from its configuration alone."""
    config = json.loads((resolve_base(base) / "scheduler" / "scheduler_config.json").read_text())
    return int(config.get("num_train_timesteps", 1000))  # as diffusers has it


def resolve_base(base: str) -> Path:
    """The local folder of a base model that can work, fetched from the hub or made out of a file where need be.

    Args:
        base: as for `load_base`.

    Raises:
        FileNotFoundError: there is no such base, or a file of it is missing.
        ValueError: it cannot work, as its configurations or the names and shapes of its tensors tell.
        OSError: a file cannot be made into a folder.
    """
    folder = plain_folder(_found(base), HUB_IDS["sd15"])
    _expect_whole(folder, state_of(folder))
    return folder


@lru_cache(maxsize=8)
def _expect_whole(folder: Path, state: str) -> None:
    """Refuse a base that cannot work; looked at once for each state of its files."""
    expect_files(parts_on_meta(folder), folder)


def _found(base: str) -> Path:
    """The folder or file of a base."""
    path = MINI_FOLDER if base == "mini" else Path(base).expanduser()
    if path.is_dir() and not (path / PIPELINE_CARD).exists():
        raise FileNotFoundError(
            f"`base` must be a folder of Stable Diffusion 1.5's layout with a {PIPELINE_CARD}, but got {str(path)!r}. "
            "Save one with `StableDiffusionPipeline.save_pretrained`, or give mini or sd15."
        )
    if path.exists():
        return path
    hub_id = HUB_IDS.get(base, base)
    if hub_id.count("/") != 1 or hub_id.startswith((".", "/", "~")) or path.suffix == ".safetensors":
        raise FileNotFoundError(
            f"`base` must be mini, sd15, a hub id (owner/name) or an existing folder or file, but got {base!r}. Check the spelling."
        )
    return _download(hub_id)


def _download(hub_id: str) -> Path:
    try:
        return Path(DiffusionPipeline.download(hub_id, use_safetensors=True, safety_checker=None))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"`base` {hub_id!r} could not be had from the model hub ({type(error).__name__}). Connect to the network, "
            "or download it elsewhere and give its folder as `base`."
        ) from error


@lru_cache(maxsize=8)
def weights_hash(folder: Path, components: Collection[str] = COMPONENTS) -> str:
    """SHA-256 over the names and contents of a pipeline folder's weights, or some parts' alone, the first 16 hex digits.

    Variants, such as `model.fp16.safetensors`, are left out: a full clone has them, a download has not, none is loaded.
    """
    digest = hashlib.sha256()
    files = sorted(file for name in components for file in weight_files(folder, name))
    for file in files:
        digest.update(file.relative_to(folder).as_posix().encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]
