"""What a study of a final evaluation is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sweep.final.bench import Finalist, Workbench


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """What a study found on test patients.

    Attributes:
        values: numbers by name.
        details: what else belongs to them, as JSON has it.
    """

    values: Mapping[str, float]
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study and whom it is for.

    Attributes:
        run: the function.
        title: for the progress display.
        of: whether it has anything to say of a finalist.
        per_seed: whether further training seeds are studied too.
        inputs: what its numbers depend on beside what all studies' do; with others it is done again.
    """

    run: Callable[[Workbench, Finalist], StudyResult]
    title: str
    of: Callable[[Finalist], bool]
    per_seed: bool = False
    inputs: Callable[[Workbench], Mapping[str, Any]] = lambda bench: {}
