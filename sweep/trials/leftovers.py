"""What trials kept to go on with, and need no more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sweep.trials.ends import TrialEnd, TrialListener
from trainables.checkpoints import remove_checkpoints
from trainables.suspending import forget_marks


class EndedCheckpoints(TrialListener):
    """Removes the checkpoints of every trial that has ended; of a full U-Net each is 10 GB.

    The trial does not do so itself: a group's workers end seconds before anybody hears of it, and where the trial's own
    process dies meanwhile, the trial is tried again.
    """

    def __init__(self, folder_of: Callable[[str], Path]) -> None:
        """Find a trial's folder by `folder_of` its id."""
        self._folder_of, self._ended = folder_of, set[str]()

    def on_end(self, trial_id: str, end: TrialEnd) -> None:
        """Remove what the trial kept."""
        self._ended.add(trial_id)
        self._remove(trial_id)

    def remove_again(self) -> None:
        """Remove what processes of ended trials had still been writing; called once none is left."""
        for trial_id in self._ended:
            self._remove(trial_id)

    def _remove(self, trial_id: str) -> None:
        folder = self._folder_of(trial_id)
        remove_checkpoints(folder)
        forget_marks(folder)  # of a process that was killed
