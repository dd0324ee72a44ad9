"""How a trial stands, as the column `status` of a run's tables says it; a trial without that column counts as completed."""

from __future__ import annotations

from typing import Final, Literal

import pandas as pd

EndKind = Literal["completed", "stopped", "failed"]
Status = Literal["running", "completed", "stopped", "failed"]
RUNNING: Final = "running"
COMPLETED: Final = "completed"
"""It was trained to its end and has every objective; nothing else may be a point of the front."""
STOPPED: Final = "stopped"
"""The sweep ended it early, at a rung, since it promised too little."""
FAILED: Final = "failed"
"""It gave no result; the column `reason` says why."""


def with_status(trials: pd.DataFrame, status: Status) -> pd.DataFrame:
    """The rows of a table of trials that have a status."""
    if "status" not in trials.columns:
        return trials if status == COMPLETED else trials.iloc[:0]
    chosen: pd.DataFrame = trials[trials["status"] == status]
    return chosen
