"""What the search asks to be tried, as it travels through Ray Tune and stands in the event log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(frozen=True, kw_only=True, slots=True)
class Suggestion:
    """A configuration to be tried.

    Attributes:
        trial_id: the sweep's own name of the trial; it stays the same when the trial is tried again or the sweep goes on.
        number: 0-based, of the sweep's suggestions; trials may start in another order.
        choice: what the search space made of it: `strategy` with its fields, `lr`, `batch_size`.
        params: the search sampler's own values by Optuna's names, such as `lora/rank`.
        distributions: what each of them was drawn from, in Optuna's JSON.
        rejected: what the search sampler had drawn before, and was over a limit: `params`, `distributions` and, by limit,
            `excess` as a share of it.
    """

    trial_id: str
    number: int
    choice: Mapping[str, Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    distributions: Mapping[str, str] = field(default_factory=dict)
    rejected: Sequence[Mapping[str, Any]] = field(default_factory=list)

    def as_config(self) -> dict[str, Any]:
        """The configuration of a Tune trial."""
        return asdict(self)

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Self:
        """Back from a Tune trial's configuration."""
        return cls(**config)
