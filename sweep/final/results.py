"""Results of a final evaluation on disk: one file a finalist, one table for all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.files import whole_file
from analysis.final_scores import (
    DONE,
    FORMAT,
    SCORES_FILE,
    SERIES,
    STUDY_FAILED,
    read_finalists,
    read_scores,
    values_of,
)
from analysis.run_folder import RunFolder

SUMMARY = "summary.parquet"
TEST, VALIDATION, SEEDS = "test/", "validation/", "seeds/"
"""Prefixes of the summary's columns, so that nobody takes a number that trials were selected by for a final one."""


class Scores:
    """One finalist's `scores.json`; written anew, whole, after each study."""

    def __init__(self, folder: Path, identity: Mapping[str, Any], series: int) -> None:
        """Go on from the file in `folder` where it is of the same identity, else begin a new one.

        Args:
            folder: of the finalist.
            identity: all that its numbers depend on.
            series: in which it is evaluated now.
        """
        self.path = folder / SCORES_FILE
        kept = read_scores(self.path)
        fits = kept is not None and all(kept.get(name) == value for name, value in identity.items())
        fresh: dict[str, Any] = {"format": FORMAT, **identity, "studies": {}}
        self.record = (kept if kept is not None and fits else fresh) | {SERIES: series}

    def done(self, study: str, inputs: Mapping[str, Any]) -> bool:
        """Whether a study was completed with these inputs."""
        kept = self.studies.get(study, {})
        return kept.get("status") == DONE and kept.get("inputs", {}) == inputs

    @property
    def studies(self) -> dict[str, dict[str, Any]]:
        """What is known of each study."""
        studies: dict[str, dict[str, Any]] = self.record["studies"]
        return studies

    def keep(self, study: str, outcome: Mapping[str, Any]) -> None:
        """Note how a study ended."""
        self.studies[study] = dict(outcome)
        self.write()

    def note(self, name: str, value: Any) -> None:
        """Note something else of the finalist."""
        self.record[name] = value
        self.write()

    def write(self) -> None:
        """Write the file, whole or not at all."""
        with whole_file(self.path) as file:
            file.write((json.dumps(self.record, indent=2, allow_nan=False) + "\n").encode())

    def values(self, studies: Sequence[str]) -> dict[str, float]:
        """The numbers of these studies, where completed, by name."""
        return values_of({"studies": {name: self.studies[name] for name in studies if name in self.studies}})


def write_summary(run: RunFolder, path: Path) -> None:
    """Write the table of all finalists that compare with the last series, one row each.

    Columns are named after what they are of: `test/fid_mini/Edema` is final, on test patients where the study's splits in
    `scores.json` name no others; `validation/fid_mini` is what the trial was selected by; `seeds/fid_mini` with `_low`
    and `_high` is the mean of several trainings, final too; the interval is there from three on.

    Args:
        run: the run that the finalists are of.
        path: `DIR/evaluation/summary.parquet`.
    """
    rows = [_row(run, finalist.record) for finalist in read_finalists(run.folder).finalists]
    with whole_file(path) as file:
        pd.DataFrame(rows).to_parquet(file, index=False)


def _row(run: RunFolder, record: Mapping[str, Any]) -> dict[str, Any]:
    names = ("trial_id", "strategy", "seed")
    failed = [
        f"{name}: {study['error']}" for name, study in record["studies"].items() if study["status"] == STUDY_FAILED
    ]
    return {
        **{name: record[name] for name in names},
        "num_seeds": len(record.get("seeds", {}).get("seeds", [record["seed"]])),
        "failed": "; ".join(failed) or None,
        **_selection(run, str(record["trial_id"])),
        **{f"{TEST}{name}": value for name, value in values_of(record).items()},
        **{f"{SEEDS}{name}": value for name, value in _over_seeds(record).items()},
    }


def _over_seeds(record: Mapping[str, Any]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, interval in record.get("seeds", {}).get("values", {}).items():
        key, slash, rest = name.partition("/")
        ends = {"": interval["mean"], "_low": interval["low"], "_high": interval["high"]}
        figures |= {f"{key}{end}{slash}{rest}": value for end, value in ends.items() if value is not None}
    return figures


def _selection(run: RunFolder, trial_id: str) -> dict[str, Any]:
    """What the trial scored on validation patients, by which it was selected."""
    row = run.trials[run.trials["trial_id"].astype(str) == trial_id]
    if row.empty:
        return {}
    measured = [name for name in run.trials.columns if _is_metric(run, str(name))]
    return {f"{VALIDATION}{name}": row.iloc[0][name] for name in measured}


def _is_metric(run: RunFolder, column: str) -> bool:
    extractor = str(run.config["evaluation"]["extractor"])
    return run.direction(column) is not None and column.split("/")[0].endswith(f"_{extractor}")
