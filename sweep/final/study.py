"""What a study of a final evaluation is."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from analysis.checks import expect
from sweep.final.bench import Finalist, Workbench


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """What a study found.

    Attributes:
        values: numbers by the name that results have, all finite.
        details: what else belongs to them, as JSON has it.

    Raises:
        ValueError: a number is not finite, which JSON cannot hold.
    """

    values: Mapping[str, float]
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every number, while it is still this study's failure alone."""
        for name, value in self.values.items():
            expect(
                math.isfinite(value), f"`{name}` must be finite", value, "Look for films that are blank or all alike."
            )
        try:
            json.dumps(self.details, allow_nan=False)
        except ValueError as error:
            raise ValueError(
                f"`details` must hold finite numbers, but got {error}. Look at the study's films."
            ) from error


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study and whom it is for.

    Attributes:
        run: computes the study of one finalist.
        title: what the progress display calls it.
        splits: of which patients the films are that it looks at.
        of: whether it has anything to say of a finalist.
        per_seed: whether further training seeds are studied too.
        when: whether it belongs to a run.
        inputs: what its numbers depend on beside what all studies' do; with others it is done again.
    """

    run: Callable[[Workbench, Finalist], StudyResult]
    title: str
    splits: str
    of: Callable[[Finalist], bool]
    per_seed: bool = False
    when: Callable[[Workbench], bool] = lambda bench: True
    inputs: Callable[[Workbench], Mapping[str, Any]] = lambda bench: {}
