"""Where an adapter comes from: its run, its place on the front, its data, how to prompt it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.front.pareto import FrontPoint
from analysis.report.words import ARROWS, label, number
from analysis.run_folder import PROVENANCE, RunFolder

DATASET_CARD = "dataset.json"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a run tells of one of its trials.

    Attributes:
        run: the run that the adapter is of.
        trial_id: the trial that trained it.
        adapter: the adapter's card: strategy, hyperparameters, base.
        dataset: the card of the prepared films; empty where they have moved.
        provenance: packages, commit and weights behind the run; empty where the file is missing.
    """

    run: RunFolder
    trial_id: str
    adapter: Mapping[str, Any]
    dataset: Mapping[str, Any]
    provenance: Mapping[str, Any]

    @staticmethod
    def of(run: RunFolder, trial_id: str, adapter: Mapping[str, Any]) -> Origin:
        """What there is of a trial.

        Args:
            run: the run that the trial is of.
            trial_id: the trial.
            adapter: the adapter's card, as `read_card` gives it.
        """
        data = run.config.get("data", {})
        prepared = data.get("path") if data.get("source") == "prepared" else run.folder / "cache" / "dataset"
        return Origin(
            run=run,
            trial_id=trial_id,
            adapter=adapter,
            dataset=_json(Path(prepared) / DATASET_CARD) if prepared else {},
            provenance=_json(run.folder / PROVENANCE),
        )

    @property
    def point(self) -> FrontPoint | None:
        """Its point on the front, if it is there."""
        return next((point for point in self.run.front.points if point.trial_id == self.trial_id), None)

    @property
    def place(self) -> str:
        """Its place on the front in words."""
        points = self.run.front.points
        if self.point is None:
            return f"not on the front, which has {len(points)} points"
        knee = "the knee of" if self.point.knee else "on"
        values = (
            f"{label(objective.name)} {number(self.point.values[objective.name])} {ARROWS[objective.direction]}"
            for objective in self.run.front.objectives
        )
        return f"{knee} a front of {len(points)} points: {', '.join(values)}"

    @property
    def prompts(self) -> str:
        """How its films are asked for."""
        made = self.dataset.get("prompts", {})
        if made.get("template") is None:
            return "Prompts are free text, as the captions of its training films."
        findings = ", ".join(str(name).lower() for name in self.dataset.get("conditions", ()))
        words = [" or ".join((made.get(name) or {}).values()) for name in ("sex_words", "view_words")]
        aged = "{age} years old" if made.get("with_age") else ""
        said = ", ".join(part for part in (made["template"], words[0], aged, words[1]) if part)
        last = made.get("last_word", "and")
        joined = f"commas and `{last}`" if last else "commas"
        return f"{said}, where findings are {findings}; several are joined by {joined}."

    def as_words(self) -> dict[str, str]:
        """What the metadata of files say."""
        words = {"run": self.run.folder.name, "trial": self.trial_id, "front": self.place}
        return words | ({"prompts": self.prompts} if self.dataset else {})


def _json(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return content
