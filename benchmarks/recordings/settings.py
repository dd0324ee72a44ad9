"""What a recording is made of, and where its parts lie."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from analysis.files import whole_file
from benchmarks.recordings.draws import Training, trainings
from search_spaces import SEARCH_SPACES
from sweep.config import SweepConfig

SETTINGS: Final = "recording.json"


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A recording; picklable.

    Attributes:
        config: data, base, training and evaluation, as for a sweep.
        work: folder of the parts and of what is made on the way.
        rungs: epochs after which a training is scored; the last is its end.
        low_images: films per condition of the smaller score.
        num_configs: configurations.
        num_repeated: those trained with further seeds too.
    """

    config: SweepConfig
    work: Path
    rungs: tuple[int, ...]
    low_images: int
    num_configs: int
    num_repeated: int

    @cached_property
    def trainings(self) -> list[Training]:
        """All trainings, in order."""
        assert self.config.strategies is not None
        return trainings(
            SEARCH_SPACES[self.config.space],
            self.config.strategies,
            num_configs=self.num_configs,
            num_repeated=self.num_repeated,
            seed=self.config.seed,
        )

    def part(self, training: Training) -> Path:
        """Where what a training gave is kept."""
        return self.work / "parts" / f"{training.name}.json"

    def done(self) -> Iterator[Training]:
        """The trainings that have ended."""
        return (training for training in self.trainings if self.part(training).is_file())

    def settings(self) -> dict[str, Any]:
        """What all parts must share: everything but the strategies, how many trainings there are, and where things lie."""
        own = self.config.model_dump(mode="json", include={"base", "space", "seed", "training", "evaluation"})
        return {**own, "rungs": list(self.rungs), "low_images": self.low_images}

    def keep_settings(self, provenance: Mapping[str, Any]) -> None:
        """Write them, or refuse others than those that the folder's parts were made with.

        Args:
            provenance: what else all parts share, such as the data's fingerprint.

        Raises:
            ValueError: they differ.
        """
        file, now = self.work / SETTINGS, {**self.settings(), **provenance}
        if not file.exists():
            with whole_file(file) as stream:
                stream.write((json.dumps(now, indent=2) + "\n").encode())
        before = json.loads(file.read_text())
        differing = [name for name in now if before.get(name) != now[name]]
        if differing:
            raise ValueError(
                f"`--work` must hold parts of the same settings, but got other {', '.join(differing)} in {str(file)!r}. "
                "Give the settings of then, or another folder."
            )
