"""What an earlier sweep knows that a new one may use, as it stands in the event log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlierSweep:
    """An earlier sweep, read once when a new one begins; from then on the new one's log holds it.

    Attributes:
        folder: its run directory.
        differs: in what it differs from the new one of all that values depend on, such as `training.num_epochs`; empty: its
            results are observations of the new search.
        trials: each with `choice`, `params` and `metrics`, as of a trial of the new sweep's own: of a sweep that does not
            differ all that were completed, of another those on its front, the first to be proposed first.
    """

    folder: str
    differs: Sequence[str]
    trials: Sequence[Mapping[str, Any]]

    def told(self) -> str:
        """What becomes of it, in a sentence."""
        if self.differs:
            proposed = "configurations of its front are proposed" if self.trials else "its front is empty"
            return f"{self.folder} differs in {', '.join(self.differs)}: its results do not count, and {proposed}"
        return f"{self.folder} is of the same data and evaluation: its {len(self.trials)} completed trials are observations"
