"""What a trial keeps to go on with, and when."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trainables.checkpoints import Checkpoint, read_checkpoint, remove_checkpoints, write_checkpoint
from trainables.epochs import DivergedError
from trainables.training import FineTuning

if TYPE_CHECKING:
    from trainables.trial import TrialSpec

log = logging.getLogger(__name__)
TRAINS: Final = "trains"
"""Key of a checkpoint's facts that says which training it is of."""
UNTOLD: Final = "untold"
"""Key of a checkpoint's facts that has the last report, where it may not have been heard."""


class Keeper:
    """Writes a trial's checkpoints, in one process of the trial.

    Args:
        spec: of the trial.
        tuning: its training.
    """

    def __init__(self, spec: TrialSpec, tuning: FineTuning) -> None:
        self._spec, self._tuning = spec, tuning
        self._kept_s, self._has_said = time.monotonic(), False

    def keep(self, *, untold: Mapping[str, Any]) -> None:
        """Keep the end of an epoch, if it is time; the trial does not need that as long as it is not lost.

        Args:
            untold: the last report, where it may not have been heard; it is repeated when the trial goes on.
        """
        if time.monotonic() - self._kept_s >= self._spec.training.checkpoint_every_s:
            self._write(self._tuning.checkpoint(), untold)

    def keep_suspended(self, *, is_reported: bool, untold: Mapping[str, Any]) -> None:
        """Keep where the training was suspended.

        Args:
            is_reported: of an epoch that is over, whether it was reported.
            untold: as of `keep`.
        """
        self._write(self._tuning.checkpoint(is_reported=is_reported), untold)

    def _write(self, checkpoint: Checkpoint, untold: Mapping[str, Any]) -> None:
        facts = {**checkpoint.facts, TRAINS: what_trains(self._spec), UNTOLD: plain(untold)}
        try:
            write_checkpoint(self._spec.folder, replace(checkpoint, facts=facts))
        except OSError as error:
            self._say_once(error)
        self._kept_s = time.monotonic()

    def _say_once(self, error: OSError) -> None:
        if not self._has_said:
            log.warning(
                "`checkpoint` of %s must fit on the disk, but got: %s The trial trains on, and if it is lost it goes on from "
                "its last checkpoint, if there is one. Free space for later ones.",
                self._spec.folder,
                error,
            )
        self._has_said = True


def plain(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report as JSON gives it back, with Python's numbers in place of numpy's."""
    return dict(json.loads(json.dumps(dict(report), default=lambda number: number.item())))


@contextmanager
def kept_until_it_ends(trial: Path) -> Iterator[None]:
    """Train in this block where nobody else hears of the end: what was kept goes with it, unless a next call may go on from that.

    Args:
        trial: the folder of the training.
    """
    try:
        yield
    except DivergedError:  # it would diverge again from its checkpoint
        remove_checkpoints(trial)
        raise
    remove_checkpoints(trial)


def what_trains(spec: TrialSpec) -> dict[str, Any]:
    """What the numbers of a training depend on, apart from what folders hold."""
    training = spec.training.model_dump(mode="json", exclude={"micro_batch", "checkpoint_every_s"})
    return {
        **spec.model_dump(mode="json", include={"strategy", "lr", "batch_size", "seed", "budget"}),
        "training": training,
    }


def checkpoint_of(spec: TrialSpec) -> Checkpoint | None:
    """What the trial goes on from, if it was begun before.

    Raises:
        ValueError: its folder has another trial's.
    """
    checkpoint, due = read_checkpoint(spec.folder), what_trains(spec)
    if checkpoint is not None and checkpoint.facts[TRAINS] != due:
        raise ValueError(
            f"`checkpoint` of a trial must be of the same training, {due}, but got {checkpoint.facts[TRAINS]}. Give the "
            f"trial another folder than {spec.folder}, or remove what that holds."
        )
    return checkpoint
