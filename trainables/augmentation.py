"""Variants of training films: as the same patient might have stood, or the same detector have been set, a little otherwise.

There are as many variants of a film as the configuration says, the first of which is the film itself. What a variant looks
like depends on the film's row and the variant's number alone, so that trials of all seeds share what a frozen autoencoder
makes of it; which of them an epoch takes is drawn by seed, epoch and row.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainables.datasets.store import PreparedSplit
from trainables.draws import EpochDraws
from trainables.settings import AugmentationConfig

STREAM = 5
"""Keeps these numbers apart from others, which are drawn by at most three whole ones."""
GREYS = np.arange(256) / 255


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What is done to a film.

    Attributes:
        angle: by which it is turned about its middle, in degrees, counterclockwise.
        right, down: by which it is moved, as shares of its side.
        exponent: to which its grey levels are raised, as shares of white.
        is_mirrored: whether left and right are exchanged first.
    """

    angle: float = 0.0
    right: float = 0.0
    down: float = 0.0
    exponent: float = 1.0
    is_mirrored: bool = False


def change_of(config: AugmentationConfig, row: int, variant: int) -> Change:
    """What makes a variant of a film: nothing for the first, evenly drawn within the configuration's limits for others.

    Args:
        config: the limits.
        row: of the film in its split.
        variant: from 0 to below `config.variants`.
    """
    if variant == 0:
        return Change()
    generator = np.random.default_rng((row, variant, 0, STREAM))
    angle, right, down, exponent = generator.uniform(-1, 1, 4)
    return Change(
        angle=float(angle) * config.rotation_degrees,
        right=float(right) * config.shift,
        down=float(down) * config.shift,
        exponent=float(config.gamma**exponent),
        is_mirrored=config.flip and bool(generator.random() < 0.5),
    )


def changed(film: NDArray[np.uint8], change: Change) -> NDArray[np.uint8]:
    """A film after a change; what comes in at its border goes on with the border's grey.

    Args:
        film: grey levels, uint8[n, n].
        change: what is done to it.
    """
    side = len(film)
    film = film[:, ::-1] if change.is_mirrored else film
    if change.angle or change.right or change.down:
        reach = 0.71 * math.radians(abs(change.angle)) + 1.42 * max(abs(change.right), abs(change.down))
        margin = math.ceil(side * reach) + 2  # two more, as cubic interpolation looks two pixels further
        wide = Image.fromarray(np.pad(film, margin, mode="edge"))
        moved = (change.right * side, change.down * side)
        turned = wide.rotate(change.angle, Image.Resampling.BICUBIC, translate=moved)  # type: ignore[arg-type]
        film = np.asarray(turned)[margin : margin + side, margin : margin + side]
    levels = np.rint(GREYS**change.exponent * 255).astype(np.uint8)
    return np.asarray(levels[film], np.uint8)


class Films:
    """The films of a split as training takes them: with all of their variants, where it augments.

    Args:
        data: the films.
        config: how they are varied.
    """

    def __init__(self, data: PreparedSplit, config: AugmentationConfig) -> None:
        self._data, self._config = data, config
        self._num_variants = config.variants if config.is_on else 1

    def __len__(self) -> int:
        return len(self._data) * self._num_variants

    @property
    def resolution_px(self) -> int:
        """Side of the films."""
        return self._data.resolution_px

    @property
    def key(self) -> str:
        """What tells them apart from other variants of the same films; empty for the films alone."""
        if self._num_variants == 1:
            return ""
        return f"-{hashlib.sha256(self._config.model_dump_json().encode()).hexdigest()[:16]}"

    def places(self, rows: NDArray[np.int64], draws: EpochDraws) -> NDArray[np.int64]:
        """Where the variants lie that an epoch takes of the films in these rows: all first ones, then all second ones."""
        if self._num_variants == 1:
            return rows
        return rows + len(self._data) * draws.variants(rows, self._num_variants)

    def images(self, places: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Copies of the films or variants that lie there, uint8[n, H, W]."""
        variants, rows = np.divmod(places, len(self._data))
        films = self._data.images(rows)
        for film, row, variant in zip(films, rows.tolist(), variants.tolist(), strict=True):
            if variant:
                film[:] = changed(film, change_of(self._config, row, variant))
        return films
