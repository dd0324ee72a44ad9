"""From images and captions to the tensors of a training batch, encoded once where the encoders stay frozen."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.loaders import TextualInversionLoaderMixin
from numpy.typing import NDArray
from torch import Tensor

from trainables.augmentation import Films
from trainables.base_models.models import DiffusionModels, text_states
from trainables.batches import Share
from trainables.datasets.sharded import Layout, ShardedArray, get_or_fill
from trainables.datasets.store import PreparedSplit
from trainables.draws import EpochDraws
from trainables.loss import sample_latents
from trainables.numerics import HALF
from trainables.prefetching import prefetched
from trainables.settings import AS_THEY_ARE, AugmentationConfig

CACHED = {"vae": "moments", "text_encoder": "states"}
"""What is kept of a frozen part's outputs, by part."""
ENCODE_BATCH = 64
ENCODE_PIXELS = 8 * 512**2
"""Pixels that are encoded in one batch; SD 1.5's encoder takes about 2 KiB for each."""


HostBatch = dict[str, Tensor]
"""What a batch is made of, an entry for each image, in the host's memory."""


def to_pixels(images: NDArray[np.uint8]) -> Tensor:
    """Grey `uint8[n, H, W]` to `float32[n, 3, H, W]` in -1 to 1."""
    return pixels_of(torch.from_numpy(np.array(images)))


def pixels_of(films: Tensor) -> Tensor:
    """The same of films that are a tensor, on their device."""
    grey = films.float() / 127.5 - 1.0
    return grey[:, None].expand(-1, 3, -1, -1)


def tokenize(models: DiffusionModels, prompts: Sequence[str]) -> Tensor:
    """Token ids `int64[n, t]`, padded and cut at the tokenizer's length."""
    encoded = models.tokenizer(
        [spelled_out(models, prompt) for prompt in prompts],
        padding="max_length",
        truncation=True,
        max_length=models.tokenizer.model_max_length,
        return_tensors="pt",
    )
    ids: Tensor = encoded.input_ids
    return ids


def digest_of(token_ids: Tensor) -> str:
    """A name for token ids that no others have: what is computed from them depends on no tokenizer."""
    shape = "x".join(map(str, token_ids.shape))
    return hashlib.sha256(shape.encode() + token_ids.numpy().tobytes()).hexdigest()[:16]


def spelled_out(models: DiffusionModels, prompt: str) -> str:
    """A prompt as diffusers' pipeline tokenizes it: with placeholders, those of several vectors one by one."""
    text: str = TextualInversionLoaderMixin().maybe_convert_prompt(models.spelled(prompt), models.tokenizer)
    return text


@torch.no_grad()
def encode_images(models: DiffusionModels, data: PreparedSplit | Films, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The moments of the autoencoder's posterior for some images, `float32[n, 8, h, w]`.

    Args:
        models: with the weights of the autoencoder.
        data: the split, or its films with their variants.
        rows: int64[n] of them.
    """
    device = models.vae.device
    step = images_at_a_time(data.resolution_px)
    moments = np.empty((len(rows), *moments_shape(models, data)[1:]), np.float32)
    for start in range(0, len(rows), step):
        pixels = pixels_of(torch.from_numpy(data.images(rows[start : start + step])).to(device))
        moments[start : start + step] = models.vae.encode(pixels).latent_dist.parameters.float().cpu().numpy()
    return moments


def images_at_a_time(side_px: int) -> int:
    """How many images of a size are encoded together, at least one."""
    return max(1, min(ENCODE_BATCH, ENCODE_PIXELS // side_px**2))


def moments_shape(models: DiffusionModels, data: PreparedSplit | Films) -> tuple[int, int, int, int]:
    """Shape of the moments of a split's images: images, channels of mean and log variance, height, width."""
    config: Any = models.vae.config
    side = data.resolution_px // models.latent_factor
    return len(data), 2 * config.latent_channels, side, side


@torch.no_grad()
def encode_prompts(models: DiffusionModels, prompts: Sequence[str]) -> NDArray[np.float32]:
    """Hidden states of every prompt, `float32[n, t, d]`."""
    device = models.text_encoder.device
    starts = range(0, len(prompts), ENCODE_BATCH)
    parts = [
        text_states(models.text_encoder, tokenize(models, prompts[i : i + ENCODE_BATCH]).to(device))
        .float()
        .cpu()
        .numpy()
        for i in starts
    ]
    return np.concatenate(parts)


@dataclass(kw_only=True)
class BatchFeeder:
    """Gives training batches of one split for one base model.

    Attributes:
        models: for tokenizer and configurations; a part whose outputs are cached need not have its weights.
        data: the split that is trained on.
        data_key: names the images, so that a cache never serves others.
        trained: components that the strategy trains; their outputs are never cached.
        cache_folder: where moments and prompt states are kept, shared by all runs and machines that see it; None computes
            them at every step.
        caption_dropout: share of captions replaced by the empty one.
        augmentation: variants of the films, of which each epoch takes one.
        mixed_precision: in `bf16` or `fp16`, states come in it, as autocast would cast them, and moments rounded to fp16.
        load: gives models in which the named part has its weights; called only where a cache is still empty; by
            default `models` are taken.
    """

    models: DiffusionModels
    data: PreparedSplit
    data_key: str
    trained: Sequence[str]
    cache_folder: Path | None
    caption_dropout: float
    augmentation: AugmentationConfig = AS_THEY_ARE
    mixed_precision: str = "no"
    load: Callable[[str], DiffusionModels] | None = None

    def __post_init__(self) -> None:
        distinct = sorted({"", *self.data.prompts})
        place = {prompt: row for row, prompt in enumerate(distinct)}
        self._prompt_rows = np.array([place[prompt] for prompt in self.data.prompts], dtype=np.int64)
        self._empty_row = place[""]
        self.token_ids = tokenize(self.models, distinct)
        """Of every distinct caption and the empty one, int64[n, t]."""
        self._films = Films(self.data, self.augmentation)
        self._moments = self._cached_moments()
        self._states = self._cached_states(distinct)
        self._resident: dict[str, Tensor] = {}

    @property
    def caches_latents(self) -> bool:
        """Whether the autoencoder is out of the training loop."""
        return self._moments is not None

    @property
    def caches_prompts(self) -> bool:
        """Whether the text encoder is out of the training loop."""
        return self._states is not None

    def _cached_moments(self) -> ShardedArray | None:
        """Those of all films and variants, by the weights of the autoencoder alone: runs of other U-Nets share them."""
        if self.cache_folder is None or "vae" in self.trained:
            return None
        encoder = cache(lambda: self._loaded("vae"))
        return get_or_fill(
            self.cache_folder,
            CACHED["vae"],
            f"{self.data_key}-{self.models.vae_hash}-float32{self._films.key}",
            Layout(
                shape=moments_shape(self.models, self._films),
                dtype=np.float32,
                step=images_at_a_time(self._films.resolution_px),
            ),
            lambda start, stop: encode_images(encoder(), self._films, np.arange(start, stop)),
        )

    def _cached_states(self, prompts: Sequence[str]) -> ShardedArray | None:
        """Those of the distinct captions, which of free text are as many as the films; by their tokens and the text encoder."""
        if self.cache_folder is None or "text_encoder" in self.trained:
            return None
        encoder = cache(lambda: self._loaded("text_encoder"))
        width: int = self.models.text_encoder.config.hidden_size
        return get_or_fill(
            self.cache_folder,
            CACHED["text_encoder"],
            f"{digest_of(self.token_ids)}-{self.models.text_hash}",
            Layout(shape=(*self.token_ids.shape, width), dtype=np.float32, step=ENCODE_BATCH),
            lambda start, stop: encode_prompts(encoder(), prompts[start:stop]),
        )

    def _loaded(self, part: str) -> DiffusionModels:
        return self.models if self.load is None else self.load(part)

    def batches(
        self, shares: Iterable[Share], draws: EpochDraws, device: torch.device
    ) -> Iterator[tuple[Share, HostBatch]]:
        """Each share with what it takes from the host's memory; for an accelerator, a thread makes the next one meanwhile.

        Args:
            shares: this worker's parts of an epoch's batches.
            draws: what chance decides for each image in that epoch.
            device: where the step computes.
        """
        if device.type == "cpu":
            return ((share, self.host_batch(share.indices, draws)) for share in shares)
        return prefetched(shares, lambda share: pinned(self.host_batch(share.indices, draws)))

    def host_batch(self, rows: NDArray[np.int64], draws: EpochDraws) -> HostBatch:
        """What a batch is made of: int64[n] rows of the split's images, and what chance decides for them."""
        noise, latent_noise = draws.noises(rows, self.latent_shape)
        prompts = np.where(draws.chances(rows) < self.caption_dropout, self._empty_row, self._prompt_rows[rows])
        return {
            "noise": noise,
            "latent_noise": latent_noise,
            "timesteps": draws.timesteps(rows, self._num_timesteps()),
            **self._host_images(self._films.places(rows, draws)),
            **self._host_captions(prompts),
        }

    def device_batch(self, host: HostBatch, device: torch.device) -> dict[str, Tensor]:
        """The tensors that the loss takes, of a batch or any part of it."""
        batch = {name: tensor.to(device, non_blocking=True) for name, tensor in host.items()}
        for name, values in self._resident.items():
            batch[name] = values[batch.pop(f"{name}_rows")]
        if "films" in batch:
            batch["pixels"] = pixels_of(batch.pop("films"))
        else:
            batch["latents"] = self._latents(batch.pop("moments"), batch.pop("latent_noise"))
        return batch

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image's latents."""
        _, channels, height, width = moments_shape(self.models, self.data)
        return channels // 2, height, width

    def _num_timesteps(self) -> int:
        return int(self.models.scheduler_config["num_train_timesteps"])

    def _host_images(self, places: NDArray[np.int64]) -> HostBatch:
        """Moments, or where the encoder is not out of the loop the films as grey bytes, a twelfth of their pixels."""
        if self._moments is None:
            return {"films": torch.from_numpy(self._films.images(places))}
        return self._kept_or_sent("moments", self._moments, places)

    def _host_captions(self, prompts: NDArray[np.int64]) -> HostBatch:
        if self._states is None:
            return {"token_ids": self.token_ids[torch.from_numpy(prompts)]}
        return self._kept_or_sent("prompt_states", self._states, prompts)

    def _kept_or_sent(self, name: str, values: ShardedArray, rows: NDArray[np.int64]) -> HostBatch:
        """The rows' values, or where these are on the device already no more than the rows."""
        if name in self._resident:
            return {f"{name}_rows": torch.from_numpy(rows)}
        return {name: torch.from_numpy(values[rows]).to(self._dtype(name))}

    def _dtype(self, name: str) -> torch.dtype:
        if self.mixed_precision not in HALF:
            return torch.float32
        return HALF[self.mixed_precision] if name == "prompt_states" else torch.float16

    def keep_on(self, device: torch.device, room_bytes: int) -> None:
        """Keep prompt states, then moments on the device, each where it fits, so that batches need not be sent there.

        Args:
            device: where the loss is computed.
            room_bytes: that they may take there.
        """
        for name, values in (("prompt_states", self._states), ("moments", self._moments)):
            num_bytes = 0 if values is None else values.size * self._dtype(name).itemsize
            if values is not None and num_bytes <= room_bytes:
                self._resident[name] = on_device(values, self._dtype(name), device)
                room_bytes -= num_bytes

    def _latents(self, moments: Tensor, latent_noise: Tensor) -> Tensor:
        config: Any = self.models.vae.config
        return sample_latents(moments.float(), latent_noise, config.scaling_factor)


def on_device(values: ShardedArray, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A copy of an array that may be larger than the host's memory, made part by part.

    Args:
        values: on the disk, read part by part.
        dtype: of the copy.
        device: where it goes.
    """
    copy = torch.empty(values.shape, dtype=dtype, device=device)
    for start in range(0, len(values), ENCODE_BATCH):
        copy[start : start + ENCODE_BATCH] = torch.from_numpy(np.array(values[start : start + ENCODE_BATCH]))
    return copy


def pinned(host: HostBatch) -> HostBatch:
    """The same in memory from which a GPU copies while it computes."""
    return {name: tensor.pin_memory() for name, tensor in host.items()}
