"""What cached features and films depend on: weights, prompts, noise, sampling, extractor."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from analysis.features import FeatureKey
from analysis.features.base import FeatureExtractor
from sweep.config import EvaluationConfig
from trainables.numerics import Numerics
from trainables.sampling import SOLVER
from trainables.strategies.card import ADAPTER_CARD, ADAPTER_WEIGHTS


def plan_digest(prompts: Sequence[str], seeds: Sequence[int]) -> str:
    """Hash of what is generated."""
    return hashlib.sha256(repr((tuple(prompts), tuple(seeds))).encode()).hexdigest()[:16]


def file_hash(path: Path | None) -> str | None:
    """Hex digest of a file's content; None where there is no file to depend on."""
    if path is None:
        return None
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def weights_digest(base_hash: str, adapter: Path | None) -> str:
    """Hash of the weights that generate: the base's, and an adapter folder's where there is one."""
    if adapter is None:
        return base_hash
    digest = hashlib.sha256()
    for name in (ADAPTER_CARD, ADAPTER_WEIGHTS):  # the card holds what acts beside the weights, such as alpha
        digest.update(_file_digest(adapter / name, _state_of(adapter / name)))
    return f"{base_hash}-{digest.hexdigest()[:16]}"


def _state_of(path: Path) -> tuple[int, ...]:
    """What differs where a file was written anew."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@lru_cache(maxsize=64)
def _file_digest(path: Path, state: tuple[int, ...]) -> bytes:
    """Digest of a file's content, kept while the file stays the same: that of a full U-Net takes two seconds."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def sampling_digest(config: EvaluationConfig, numerics: Numerics) -> str:
    """Steps, guidance and solver of the sampling, and the precision and layout in which it is computed."""
    return f"{config.num_steps}steps-guidance{config.guidance_scale:g}-{SOLVER}-{numerics.label}"


def feature_key(extractor: FeatureExtractor, data: str, count: int) -> FeatureKey:
    """Where features of `count` images called `data` are kept.

    Args:
        extractor: makes the features.
        data: identity of the images.
        count: number of images.
    """
    return FeatureKey(
        data=data,
        extractor=extractor.name,
        weights_hash=extractor.weights_hash,
        preprocessing=extractor.preprocessing,
        dtype="float32",
        count=count,
    )
