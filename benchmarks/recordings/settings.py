"""What a recording is made of, and where its parts lie."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from analysis.files import whole_file
from benchmarks.recordings import CARD, trainings_in
from benchmarks.recordings.draws import Training, trainings
from search_spaces import SEARCH_SPACES
from sweep.config import SweepConfig

SETTINGS: Final = "recording.json"
BASELINE: Final = "baseline.json"


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A recording; picklable.

    Attributes:
        config: data, base, training and evaluation, as for a sweep.
        work: folder of the parts and of what is made on the way.
        to: folder of the table; what an earlier one there holds is not made again.
        rungs: epochs after which a training is scored; the last is its end.
        low_images: films per condition of the smaller score.
        num_configs: configurations.
        num_repeated: those trained with further seeds too.
    """

    config: SweepConfig
    work: Path
    to: Path
    rungs: tuple[int, ...]
    low_images: int
    num_configs: int
    num_repeated: int

    @cached_property
    def trainings(self) -> list[Training]:
        """All trainings, in order."""
        return trainings(
            SEARCH_SPACES[self.config.search.space],
            self.config.search.candidates(),
            num_configs=self.num_configs,
            num_repeated=self.num_repeated,
            seed=self.config.seed,
        )

    def part(self, training: Training) -> Path:
        """Where what a training gave is kept."""
        return self.work / "parts" / f"{training.name}.json"

    @cached_property
    def in_table(self) -> frozenset[str]:
        """Names of the trainings that the table held when this was first asked."""
        return trainings_in(self.to)

    def is_done(self, training: Training) -> bool:
        """Whether a training has ended: there is its part, or its rows in the table."""
        return training.name in self.in_table or self.part(training).is_file()

    def has_baseline(self) -> bool:
        """Whether the un-adapted base has been scored."""
        return kept_baseline(self.work, self.to) is not None

    def done(self) -> Iterator[Training]:
        """The trainings that have ended."""
        return filter(self.is_done, self.trainings)

    def settings(self) -> dict[str, Any]:
        """What all parts must share: everything but the strategies, how many trainings there are, and where things lie."""
        settings = self.config.model_dump(mode="json", include={"base", "seed", "training", "evaluation"})
        return {**settings, "space": self.config.search.space, "rungs": list(self.rungs), "low_images": self.low_images}

    def keep_settings(self, provenance: Mapping[str, Any]) -> None:
        """Write them, or refuse others than those that the parts and the table were made with.

        Args:
            provenance: what else all parts share, such as the data's fingerprint.

        Raises:
            ValueError: they differ.
        """
        now = {**self.settings(), **provenance}
        for source, before in kept_settings(self.work, self.to).items():
            require_same(before, now, source)
        if not (self.work / SETTINGS).exists():
            with whole_file(self.work / SETTINGS) as stream:
                stream.write((json.dumps(now, indent=2) + "\n").encode())


def kept_settings(work: Path, to: Path) -> dict[Path, Mapping[str, Any]]:
    """By file the settings of the parts and of the table, where there are some."""
    parts, card = work / SETTINGS, to / CARD
    by_file: dict[Path, Mapping[str, Any]] = {}
    if parts.exists():
        by_file[parts] = json.loads(parts.read_text())
    if card.exists():
        by_file[card] = json.loads(card.read_text())["settings"]
    return by_file


def kept_baseline(work: Path, to: Path) -> list[dict[str, Any]] | None:
    """The scores of the un-adapted base by number of films: the table's card's, else those of `work`; None without either."""
    card, file = to / CARD, work / BASELINE
    rows: list[dict[str, Any]] | None = json.loads(card.read_text())["baseline"] if card.exists() else None
    if rows is None and file.exists():
        rows = json.loads(file.read_text())["rows"]
    return rows


def require_same(before: Mapping[str, Any], now: Mapping[str, Any], source: Path) -> None:
    """Refuse settings that differ from those that a file holds.

    Raises:
        ValueError: some differ.
    """
    differing = [name for name in now if before.get(name) != now[name]]
    if differing:
        raise ValueError(
            f"`{source}` must be of the same settings, but got other {', '.join(differing)}. "
            "Give the settings of then, or other folders by --work and --to."
        )
