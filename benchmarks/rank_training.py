"""Every rank from one training, beside a training for each rank: nested LoRA, DyLoRA and LoRA on real films.

    python -m sweep.prepare nih_cxr14 --root ROOT --to prepared/nih_cxr14_64_240 --num-train 240
    python -m benchmarks.rank_training --prepared prepared/nih_cxr14_64_240 --work runs/ranks --json ranks.json

All have the same learning rate, the same batches and, at the largest rank, the same scale (alpha over rank). LoRA and nested LoRA have
that scale at every rank; DyLoRA keeps alpha and divides it by the rank that it is cut to. So learning rates are
compared too, each with a folder of its own. It may be killed at any moment: the same command goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.record_curves import make_missing, provenance_of, recording_of
from benchmarks.recordings.draws import Training
from benchmarks.recordings.settings import Recording

RANKS: Final = (1, 2, 4, 8)
SCALE: Final = 2.0
"""alpha over rank."""
TOGETHER: Final = ("nested_lora", "dylora")
METRICS: Final = ("fid_mini", "vendi_mini")


@dataclass(frozen=True, kw_only=True)
class RankRecording(Recording):
    """Trainings of every rank together, and of each alone, by seed; see `Recording`.

    Attributes:
        lr: of all trainings.
        batch_size: likewise.
        num_seeds: trainings of each kind.
    """

    lr: float
    batch_size: int
    num_seeds: int

    @cached_property
    def trainings(self) -> list[Training]:
        """All of a seed, then those of the next."""
        return [training for seed in range(self.num_seeds) for training in self._of_seed(seed)]

    def _of_seed(self, seed: int) -> Iterator[Training]:
        for name in TOGETHER:
            yield self._training(name, RANKS[-1], seed, evaluated_ranks=list(RANKS[:-1]))
        for rank in RANKS:
            yield self._training("lora", rank, seed)

    def _training(self, name: str, rank: int, seed: int, **fields: Any) -> Training:
        strategy = {"name": name, "rank": rank, "alpha": SCALE * rank, **fields}
        choice = {"strategy": strategy, "lr": self.lr, "batch_size": self.batch_size}
        return Training(strategy=name, number=rank, seed=seed, choice=choice, params={})


def scores_of(recording: RankRecording) -> dict[tuple[str, int], list[Mapping[str, Any]]]:
    """By strategy and rank, what each seed's adapter scored at its end with all films."""
    by_kind: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for training in recording.trainings:
        if not recording.is_done(training):
            continue
        part = json.loads(recording.part(training).read_text())
        last = [row for row in part["rows"] if row["epoch"] == recording.rungs[-1]]
        most = max((row["images_per_condition"] for row in last), default=0)
        for row in last:
            if row["images_per_condition"] == most:
                rank = int(row["cut"].removeprefix("rank")) if row["cut"] else training.number
                by_kind.setdefault((training.strategy, rank), []).append(row)
    return by_kind


def summary(scores: Mapping[tuple[str, int], Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """A row a strategy and rank: number of seeds, means and standard deviations over them, and CPU seconds of the training."""
    return [
        {"strategy": strategy, "rank": rank, "num_seeds": len(rows)}
        | {name: mean(row[name] for row in rows) for name in METRICS}
        | {f"{name}_sd": stdev(row[name] for row in rows) for name in METRICS if len(rows) > 1}
        | {"training_cpu_s": mean(row["training_cpu_s"] for row in rows)}
        for (strategy, rank), rows in sorted(scores.items())
    ]


def main(
    prepared: Annotated[Path, typer.Option(help="Folder of prepared films.")],
    work: Annotated[Path, typer.Option(help="Where what is done is kept.")],
    num_seeds: Annotated[int, typer.Option(min=1, help="Trainings of each kind.")] = 3,
    lr: Annotated[float, typer.Option(help="Of all trainings: the middle of the mini space's range.")] = 2e-3,
    batch_size: Annotated[int, typer.Option(help="Likewise.")] = 16,
    epochs: Annotated[int, typer.Option(min=1, help="Of each training.")] = 9,
    images_per_condition: Annotated[int, typer.Option(min=2, help="Films that score an adapter.")] = 32,
    json_: Annotated[Path | None, typer.Option("--json", help="Where the rows go.", metavar="FILE")] = None,
) -> None:
    """Train every rank together and each alone, and compare what they score on held-out films.

    Example: python -m benchmarks.rank_training --prepared prepared/nih_cxr14_64_240 --work runs/ranks
    """
    from benchmarks.recordings.training import scorer_of

    plain = recording_of(
        prepared,
        work,
        work / "table",
        rungs=[epochs],
        strategies=["lora"],
        settings=[f"training.num_epochs={epochs}", f"evaluation.images_per_condition={images_per_condition}"],
        num_configs=1,
        num_repeated=0,
        low_images=images_per_condition // 2,
    )
    recording = RankRecording(**vars(plain), lr=lr, batch_size=batch_size, num_seeds=num_seeds)
    scorer, provenance = scorer_of(recording), provenance_of(recording)
    recording.keep_settings({name: provenance[name] for name in ("data_fingerprint", "base")})
    make_missing(recording, scorer, provenance, lambda: None)
    rows = summary(scores_of(recording))
    if json_ is not None:
        json_.write_text(json.dumps(rows, indent=1) + "\n")
    table = Table("strategy", "rank", "seeds", "FID", "Vendi", "CPU s of its training")
    for row in rows:
        spreads = [f" ± {row[f'{name}_sd']:.2f}" if row["num_seeds"] > 1 else "" for name in METRICS]
        cells = [f"{row[name]:.2f}{spread}" for name, spread in zip(METRICS, spreads, strict=True)]
        table.add_row(row["strategy"], str(row["rank"]), str(row["num_seeds"]), *cells, f"{row['training_cpu_s']:.0f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
