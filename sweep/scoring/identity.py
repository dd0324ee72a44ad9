"""What cached features and films depend on: weights, prompts, noise, sampling, extractor."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from analysis.features import FeatureKey
from analysis.features.base import FeatureExtractor
from sweep.config import EvaluationConfig
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
        with (adapter / name).open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return f"{base_hash}-{digest.hexdigest()[:16]}"


def sampling_digest(config: EvaluationConfig) -> str:
    """Steps and guidance of the sampling."""
    return f"{config.num_steps}steps-guidance{config.guidance_scale:g}"


def feature_key(extractor: FeatureExtractor, data: str, count: int) -> FeatureKey:
    """Where features of `count` images called `data` are kept."""
    return FeatureKey(
        data=data,
        extractor=extractor.name,
        weights_hash=extractor.weights_hash,
        preprocessing=extractor.preprocessing,
        dtype="float32",
        count=count,
    )
