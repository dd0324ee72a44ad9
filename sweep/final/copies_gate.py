"""No adapter leaves a run with more copies of training films than allowed."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.final_scores import EVALUATION, SCORES_FILE, read_scores, values_of
from analysis.run_folder import RunFolder


def require_few_copies(run: RunFolder, trial_id: str, limit: float | None) -> None:
    """Let a trial pass whose final evaluation found few enough copies of training films; without a limit any passes.

    Args:
        run: the finished run.
        trial_id: one of its trials.
        limit: allowed share of copies among the generated films, in [0, 1].

    Raises:
        MemorisationError: the trial has not been evaluated, the study failed, or the share is above the limit.
        ValueError: the limit is not in [0, 1], or the scores are damaged.
    """
    if limit is None:
        return
    from analysis.studies.memorisation import MemorisationError, gate_share  # torch takes seconds to import

    scores = read_scores(run.folder / EVALUATION / trial_id / SCORES_FILE)
    values = values_of(scores) if scores is not None else {}
    if scores is None or "memorisation_share" not in values or not _of_these_weights(scores, run.adapter(trial_id)):
        raise MemorisationError(
            f"`--max-copies` must have the trial's copies counted before, but got no count for {trial_id!r} as it is. "
            f"Count them with `python -m sweep.evaluate --run {shlex.quote(str(run.folder))} --pick trial:{trial_id}`."
        )
    counts = {"num_copies": values["memorisation_num_copies"], "num_films": values["memorisation_num_generated"]}
    gate_share(values["memorisation_share"], limit, **{name: int(count) for name, count in counts.items()})


def _of_these_weights(scores: Mapping[str, Any], adapter: Path) -> bool:
    from sweep.scoring.identity import weights_digest
    from trainables.strategies.card import read_card

    return bool(scores["weights"] == weights_digest(read_card(adapter)["base"]["weights_hash"], adapter))
