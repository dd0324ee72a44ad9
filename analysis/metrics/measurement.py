"""A metric's value together with all that it depends on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

COUNTS = ("num_generated", "num_reference")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A value that may be compared with another of the same metric, extractor and numbers of images, and no other.

    Attributes:
        metric: its table key, "fid".
        value: what the metric gave; finite.
        num_generated: generated images behind it.
        num_reference: real images behind it.
        extractor: name of what made the features.
        weights_hash: hex digest of the extractor's weights.
        condition: of the images, None where it is over all.
    """

    metric: str
    value: float
    num_generated: int
    num_reference: int
    extractor: str
    weights_hash: str
    condition: str | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"`value` must be finite, but got {self.value} for {self.metric}. Leave it out instead.")

    def __lt__(self, other: Measurement) -> bool:
        require_comparable(self, other)
        return self.value < other.value

    def __gt__(self, other: Measurement) -> bool:
        require_comparable(self, other)
        return self.value > other.value

    def __sub__(self, other: Measurement) -> float:
        require_comparable(self, other)
        return self.value - other.value


def require_comparable(first: Measurement, second: Measurement) -> None:
    """Refuse to set values against each other that do not measure the same.

    Conditions may differ: which one a model shows best is a fair question where the numbers of images agree.

    Raises:
        ValueError: metric, extractor, its weights or a number of images differ; the message names which.
    """
    names = ("metric", "extractor", "weights_hash", *COUNTS)
    differing = [name for name in names if getattr(first, name) != getattr(second, name)]
    if differing:
        ours, theirs = (
            ", ".join(f"{name} {getattr(measurement, name)}" for name in differing) for measurement in (first, second)
        )
        raise ValueError(
            f"`measurements` must share {', '.join(names)} to be compared, but got {ours} against {theirs}. "
            "Evaluate both in the same way; a metric's bias depends on the number of images."
        )


def measurements(results: Mapping[str, float], *, extractor: str, weights_hash: str) -> tuple[Measurement, ...]:
    """What `evaluate` returned, each value with its numbers of images, extractor and weights.

    Args:
        results: as `evaluate` returns them; names of other extractors are passed over.
        extractor: name of what made the features.
        weights_hash: hex digest of its weights.

    Raises:
        ValueError: a value is not finite.
        KeyError: the numbers of images behind a value are missing.
    """
    entries = []
    for key, value in results.items():
        name, slash, condition = key.partition("/")
        if name.endswith(f"_{extractor}"):
            counts = {count: int(results[f"{count}{slash}{condition}"]) for count in COUNTS}
            entries.append(
                Measurement(
                    metric=name.removesuffix(f"_{extractor}"),
                    value=value,
                    **counts,
                    extractor=extractor,
                    weights_hash=weights_hash,
                    condition=condition or None,
                )
            )
    return tuple(entries)
