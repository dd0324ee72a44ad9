"""What a sweep leaves on disk as it goes, so that a crash loses nothing that was finished."""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import pandas as pd
from ray.tune.result import AUTO_RESULT_KEYS

from analysis.files import whole_file
from analysis.front.pareto import PARAMETER_PREFIX, Front, Objective, front
from sweep.config import ConfigError, SweepConfig

CONFIG: Final = "config.json"
PROVENANCE: Final = "provenance.json"
REPORTS: Final = "reports.jsonl"
TRIALS: Final = "trials.parquet"
RESULTS: Final = "results.parquet"
PARETO: Final = "pareto.json"
BASELINE: Final = "baseline.json"
PACKAGES: Final = (
    "radiograph-sweep", "torch", "diffusers", "transformers", "peft", "accelerate", "ray", "optuna", "mlflow",
    "torchxrayvision", "numpy", "scipy", "pandas", "pyarrow", "safetensors",
)  # fmt: skip
RAYS_OWN: Final = frozenset(AUTO_RESULT_KEYS) | {
    "config",
    "done",
    "trial_id",
    "checkpoint_dir_name",
    "should_checkpoint",
}


class Journal:
    """Writes a run directory; a listener to the sweep's trials.

    Every event goes to `reports.jsonl` at once. The tables are written anew, whole or not at all, when a trial ends.
    """

    def __init__(self, out: Path, objectives: Sequence[Objective], events: IO[str]) -> None:
        """See `Journal.create`."""
        self.out = out
        self._objectives = tuple(objectives)
        self._events = events
        self._trials: dict[str, dict[str, Any]] = {}
        self._results: list[dict[str, Any]] = []

    @classmethod
    def create(cls, out: Path, config: SweepConfig, provenance: Mapping[str, Any]) -> Journal:
        """Begin a run directory.

        Args:
            out: Folder, made where it is missing.
            config: Resolved configuration, kept as `config.json`.
            provenance: What `collect_provenance` gives, kept as `provenance.json`.

        Raises:
            ConfigError: `out` holds a run already, or is not a folder.
        """
        require_new_run(out)
        out.mkdir(parents=True, exist_ok=True)
        _write_json(out / PROVENANCE, provenance)
        _write_json(out / CONFIG, config.model_dump(mode="json"))
        return cls(out, config.reported_objectives(), (out / REPORTS).open("a", encoding="utf-8"))

    def on_start(self, trial_id: str, choice: Mapping[str, Any]) -> None:
        """Note that a trial began, and with what."""
        number = sum(row["cut_of"] is None for row in self._trials.values())
        row = {"trial_id": trial_id, "number": number, "status": "running", "error": None, "cut_of": None}
        self._trials[trial_id] = row | _chosen(choice)
        self._append("start", {"trial_id": trial_id, **flat_choice(choice)})

    def on_report(self, trial_id: str, metrics: Mapping[str, Any]) -> None:
        """Note a trial's report; its numbers are the trial's until the next report."""
        values = own_values(metrics)
        self._results.append({"trial_id": trial_id, **values})
        self._trials[trial_id].update(values)
        self._append("report", {"trial_id": trial_id, **values})

    def on_cut(self, cut_id: str, trial_id: str, choice: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """Note a smaller adapter of a trial's training: a completed row of its own, under the trial's number."""
        row = {"trial_id": cut_id, "number": self._trials[trial_id]["number"], "status": "completed", "error": None}
        values = own_values(metrics)
        self._trials[cut_id] = {**row, "cut_of": trial_id, **_chosen(choice), **values}
        self._append("cut", {"trial_id": cut_id, "cut_of": trial_id, **flat_choice(choice), **values})

    def on_end(self, trial_id: str, error: str | None) -> None:
        """Note how a trial ended, and write the tables."""
        self._trials[trial_id].update(status="completed" if error is None else "failed", error=error)
        self._append("end", {"trial_id": trial_id, "error": error})
        self._write_tables()

    def baseline(self, scores: Mapping[str, float]) -> None:
        """Keep what the un-adapted base model scores."""
        _write_json(self.out / BASELINE, scores)

    def finish(self) -> Front:
        """Fail trials that never ended, write the front and the final tables, and close."""
        for trial_id, row in self._trials.items():
            if row["status"] == "running":
                self.on_end(trial_id, "the sweep ended before the trial did")
        found = self._write_tables()
        self._events.close()
        return found

    def evaluation_s(self) -> float:
        """Seconds that trials have waited for evaluations, cuts' and early ones included."""
        cuts = [row for row in self._trials.values() if row["cut_of"] is not None]
        return float(sum(row.get("evaluation_s", 0.0) for row in [*self._results, *cuts]))

    def trials(self) -> pd.DataFrame:
        """One row a trial or cut, with a column for every objective and whether it is on the front and its knee."""
        return _mark_front(self._table(), self._front())

    def _table(self) -> pd.DataFrame:
        columns = ["trial_id", "number", "status", "error", "cut_of", "strategy"]
        table = pd.DataFrame(list(self._trials.values()), columns=None if self._trials else columns)
        for objective in self._objectives:
            if objective.name not in table:
                table[objective.name] = np.nan
        return table

    def _front(self) -> Front:
        return front(self._table(), self._objectives)

    def _write_tables(self) -> Front:
        found = self._front()
        _write_parquet(self.out / TRIALS, _mark_front(self._table(), found))
        _write_parquet(self.out / RESULTS, pd.DataFrame(self._results, columns=None if self._results else ["trial_id"]))
        found.write(self.out / PARETO)
        return found

    def _append(self, event: str, values: Mapping[str, Any]) -> None:
        record = {"event": event, "time": datetime.now(UTC).isoformat(), **values}
        self._events.write(json.dumps(_jsonable(record), allow_nan=False) + "\n")
        self._events.flush()


def require_new_run(out: Path) -> None:
    """Refuse a folder that a run cannot be written to.

    Raises:
        ConfigError: `out` holds a run already, or is not a folder.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"`--out` must be a folder, but got the file {str(out)!r}. Choose another --out.")
    if (out / CONFIG).exists():
        raise ConfigError(f"`--out` must not hold a run, but got {str(out)!r}, which does. Choose another --out.")


def collect_provenance(config: SweepConfig, data_fingerprint: str, weights_hash: str) -> dict[str, Any]:
    """Where a run's numbers come from: code, packages, machine, data, base weights, seed and command."""
    return {
        "started": datetime.now(UTC).isoformat(),
        "command": sys.argv,
        "seed": config.seed,
        "data_fingerprint": data_fingerprint,
        "base": {"name": config.base, "weights_hash": weights_hash},
        "git_commit": _git_commit(Path(__file__).resolve().parent),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: importlib.metadata.version(name) for name in _installed(PACKAGES)},
    }


def flat_choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    """A search space's suggestion with the strategy's name under `strategy` and its fields beside lr and batch size."""
    fields = {name: _as_text(value) for name, value in choice["strategy"].items()}
    return {"strategy": fields.pop("name"), **fields, **{key: choice[key] for key in choice if key != "strategy"}}


def _chosen(choice: Mapping[str, Any]) -> dict[str, Any]:
    """What the search sampler chose as columns of the trials' table."""
    flat = flat_choice(choice)
    params = {f"{PARAMETER_PREFIX}{name}": value for name, value in flat.items() if name != "strategy"}
    return {"strategy": flat["strategy"], **params}


def _as_text(value: Any) -> Any:
    """Several values in one cell of a table."""
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def own_values(result: Mapping[str, Any]) -> dict[str, Any]:
    """A report's plain values without what Ray Tune adds to each."""
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in result.items()}
    return {
        name: value
        for name, value in plain.items()
        if name not in RAYS_OWN and isinstance(value, (bool, int, float, str))
    }


def _mark_front(table: pd.DataFrame, found: Front) -> pd.DataFrame:
    members = {point.trial_id for point in found.points}
    knee = {found.knee.trial_id} if found.knee else set()
    return table.assign(pareto=table["trial_id"].isin(members), knee=table["trial_id"].isin(knee))


def _write_parquet(path: Path, table: pd.DataFrame) -> None:
    with whole_file(path) as file:
        table.to_parquet(file, index=False)


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    with whole_file(path) as file:
        file.write((json.dumps(_jsonable(values), indent=2, allow_nan=False) + "\n").encode())


def _jsonable(value: Any) -> Any:
    """JSON has no NaN or infinity: they become their names."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _installed(names: Sequence[str]) -> list[str]:
    present = {name.lower() for dist in importlib.metadata.distributions() if (name := dist.metadata["Name"])}
    return [name for name in names if name in present]


def _git_commit(folder: Path) -> str | None:
    """The commit that the code is at, with `-dirty` where files differ from it; None where git cannot say."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
