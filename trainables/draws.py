"""What chance decides: for each image of an epoch noise, timestep, and whether its caption is dropped; dropout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

STREAM = 2
"""Keeps these random numbers apart from others that are drawn by seed and epoch, such as the order of the images."""
VARIANT_STREAM = 3
"""Another, so that trainings without variants draw what they always did."""
TORCH_SEEDS = 2**32
"""How many seeds torch's generator on the CPU tells apart."""


class EpochDraws:
    """The draws of one epoch; those of an image depend on seed, epoch and its row alone.

    A loss therefore does not depend on how images are dealt out to micro-batches and workers, on the order in which they
    come, or on where a training was resumed. All is drawn on the CPU: a GPU's generator gives other numbers for the same
    seed, and the number of its threads decides which of them an image gets.

    Args:
        seed: of the training, at least 0.
        epoch: from 0.
        num_images: rows are below it.
    """

    def __init__(self, seed: int, epoch: int, num_images: int) -> None:
        self._place, self._num_images = (seed, epoch), num_images
        generator = np.random.default_rng((seed, epoch, STREAM))
        # A row's numbers come one after another, so that they are the same however many rows follow.
        shares = generator.random((num_images, 3))
        self._timestep_shares, self._chances = shares[:, 0], shares[:, 1]
        self._seeds = (shares[:, 2] * TORCH_SEEDS).astype(np.int64)

    def timesteps(self, rows: NDArray[np.int64], num_timesteps: int) -> Tensor:
        """A timestep for each image, int64[n] from 0 to below `num_timesteps`, each as likely."""
        return torch.from_numpy((self._timestep_shares[rows] * num_timesteps).astype(np.int64))

    def chances(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """A number for each image, float64[n] evenly in 0 to 1: a caption is dropped where it is below the share dropped."""
        chances: NDArray[np.float64] = self._chances[rows]
        return chances

    def variants(self, rows: NDArray[np.int64], num_variants: int) -> NDArray[np.int64]:
        """Which variant of each image is trained on, int64[n] from 0 to below `num_variants`, each as likely."""
        return (self._variant_shares[rows] * num_variants).astype(np.int64)

    @cached_property
    def _variant_shares(self) -> NDArray[np.float64]:
        return np.random.default_rng((*self._place, VARIANT_STREAM)).random(self._num_images)

    def noises(self, rows: NDArray[np.int64], shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Standard normal noise for each image.

        Args:
            rows: int64[n].
            shape: of one image's latents, for example (4, h, w).

        Returns:
            Two of float32[n, *shape]: what is added to the latents, and what draws the latents from their posterior.
        """
        noise, latent_noise = (torch.empty(len(rows), *shape) for _ in range(2))
        generator = torch.Generator()
        for place, seed in enumerate(self._seeds[rows].tolist()):
            generator.manual_seed(seed)
            noise[place].normal_(generator=generator)
            latent_noise[place].normal_(generator=generator)
        return noise, latent_noise


def drawn_seed(*parts: int) -> int:
    """A seed for torch: the same for the same parts, unrelated for others."""
    state = np.random.SeedSequence(parts).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


@contextmanager
def seeded_dropout(device: torch.device, seed: int, step: int, worker: int) -> Iterator[None]:
    """Let what draws from torch's global generators, as the dropout of BERT's layers does, draw by these three alone.

    Afterwards the generators go on as if nothing had been drawn. Workers draw different masks.

    Args:
        device: whose generator is seeded, besides that of the CPU.
        seed: the trial's.
        step: 0-based optimiser step.
        worker: 0-based rank.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(drawn_seed(seed, step, worker, 1))
        yield
