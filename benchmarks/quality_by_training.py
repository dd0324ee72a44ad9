"""Alignment and utility of a generator as it is trained, on the phantom, where the truth is known.

python -m benchmarks.quality_by_training --work runs/quality

Trains the mini base's U-Net on phantom films of one finding each, keeps its adapter after some epochs, and scores each,
and the un-adapted base, as `python -m sweep.evaluate` scores finalists. What is done is kept in the work folder: the
same command goes on where it was stopped.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from analysis.front.pareto import Front
from analysis.run_folder import RunFolder
from sweep.config import DataConfig, EvaluationConfig, SweepConfig
from sweep.final.bench import Finalist, Workbench, dataset_folder
from sweep.final.quality import alignment, save_samples, utility
from sweep.final.settings import FinalSettings
from trainables.datasets.base import ImageTextSample
from trainables.datasets.phantom import PhantomSource
from trainables.datasets.writing import write_dataset
from trainables.keeping import kept_until_it_ends
from trainables.settings import TrainingConfig
from trainables.trial import TrialSpec, fine_tune

COLUMNS = {
    "alignment": "alignment",
    "alignment_exact": "exact",
    "utility_auc/synthetic": "AUC, synthetic",
    "utility_f1/synthetic": "F1, synthetic",
    "utility_auc/real": "AUC, real",
    "utility_f1/real": "F1, real",
}
EPOCHS = (0, 8, 24, 48)
CONDITIONS = ("Cardiomegaly", "No Finding", "Pleural Effusion")


class SingleFindings(PhantomSource):
    """The phantom's films that show exactly one of these conditions and no other finding."""

    def __init__(self, *, num_patients: int, seed: int, conditions: Sequence[str] = CONDITIONS) -> None:
        super().__init__(num_patients=num_patients, seed=seed)
        self.conditions = tuple(conditions)

    def samples(self, split: str) -> Iterator[ImageTextSample]:
        """The films of the split, in the phantom's order."""
        for sample in super().samples(split):
            if len(sample.conditions) == 1 and sample.conditions[0] in self.conditions:
                yield sample

    def num_samples(self, split: str) -> int:
        """Films in the split."""
        return sum(1 for _ in self.samples(split))


@dataclass(frozen=True)
class Keeping:
    """An evaluator that scores nothing and keeps a copy of the adapter after some epochs."""

    folder: Path
    epochs: Sequence[int]

    def evaluate(self, adapter: Path, share_done: float) -> Mapping[str, float]:
        """Copy the adapter where its epoch is wanted."""
        epoch = round(share_done * max(self.epochs))
        if epoch in self.epochs:
            shutil.copytree(adapter, adapter_of(self.folder, epoch), dirs_exist_ok=True)
        return {}


def adapter_of(folder: Path, epoch: int) -> Path:
    """Where the adapter of an epoch is kept."""
    return folder / f"epoch-{epoch:03d}" / "adapter"


def open_bench(work: Path, config: SweepConfig, settings: FinalSettings) -> Workbench:
    """A bench on phantom films, which are drawn if they are not there."""
    run = RunFolder(
        folder=work, front=Front(objectives=(), points=()), trials=pd.DataFrame(), config=config.model_dump()
    )
    folder = dataset_folder(run, config)
    if not folder.is_dir():
        write_dataset(SingleFindings(num_patients=config.data.num_patients, seed=config.data.seed), folder)
    return Workbench(run, settings)


def train(bench: Workbench, epochs: Sequence[int], lr: float, batch_size: int, progress: Progress) -> None:
    """Train the U-Net to the last epoch, unless all adapters are there, and keep those of the wanted epochs."""
    wanted, work = [epoch for epoch in epochs if epoch > 0], bench.run.folder
    if all(adapter_of(work, epoch).is_dir() for epoch in wanted):
        return
    config = bench.config
    spec = TrialSpec(
        base=config.base,
        dataset=bench.dataset.folder,
        folder=work / "training",
        cache_folder=work / "cache",
        seed=config.seed,
        training=config.training,
        strategy={"name": "unet"},
        lr=lr,
        batch_size=batch_size,
    )
    bar = progress.add_task("training", total=max(wanted))
    with kept_until_it_ends(spec.folder):
        fine_tune(spec, Keeping(work, wanted), lambda report: progress.update(bar, advance=1))


def score(bench: Workbench, epoch: int) -> dict[str, float]:
    """Alignment and utility after an epoch; kept beside the adapter."""
    folder = adapter_of(bench.run.folder, epoch).parent
    file = folder / "scores.json"
    if not file.is_file():
        finalist = Finalist(
            trial_id=folder.name,
            strategy="unet",
            adapter=adapter_of(bench.run.folder, epoch) if epoch else None,
            seed=bench.config.seed,
            trains=("unet",),
            folder=folder,
        )
        folder.mkdir(exist_ok=True)
        save_samples(bench, finalist)
        values: dict[str, Any] = {**alignment(bench, finalist).values, **utility(bench, finalist).values}
        file.write_text(json.dumps(values, indent=2) + "\n")
    return dict(json.loads(file.read_text()))


def shown(values: Mapping[str, float], name: str) -> str:
    """A number with its standard error over films, or with its 95 % interval over classifiers."""
    value, (kind, slash, arm) = values[name], name.partition("/")
    if slash:
        return f"{value:.3f} ({values[f'{kind}_low/{arm}']:.2f} to {values[f'{kind}_high/{arm}']:.2f})"
    return f"{value:.3f} ± {math.sqrt(value * (1 - value) / values['num_aligned']):.3f}"


def main(
    work: Annotated[Path, typer.Option(help="Folder for what is made.")],
    epoch: Annotated[list[int] | None, typer.Option(help=f"To score; may be repeated. Default: {EPOCHS}.")] = None,
    num_patients: Annotated[
        int, typer.Option(help="Phantom patients; 70 % for training, about half a film each.")
    ] = 1000,
    images_per_condition: Annotated[int, typer.Option(help="Films generated for one condition and split.")] = 60,
    guidance: Annotated[float, typer.Option(help="Guidance scale of the sampling.")] = 5.0,
    steps: Annotated[int, typer.Option(help="Steps of the sampling.")] = 12,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-3,
    batch_size: Annotated[int, typer.Option(help="Films a step.")] = 8,
    min_snr_gamma: Annotated[float | None, typer.Option(help="Of the loss weighting; none by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of patients, training and noise.")] = 0,
) -> None:
    """Print alignment and utility by the epochs of training."""
    epochs, console = sorted(epoch or EPOCHS), Console()
    config = SweepConfig(
        seed=seed,
        data=DataConfig(num_patients=num_patients, seed=seed),
        training=TrainingConfig(
            num_epochs=max(epochs), evaluate_every_epochs=math.gcd(*epochs), min_snr_gamma=min_snr_gamma
        ),
        evaluation=EvaluationConfig(
            num_steps=steps, guidance_scale=guidance, images_per_condition=images_per_condition
        ),
    )
    bench = open_bench(work, config, FinalSettings(images_per_condition=images_per_condition))
    table = Table("epochs", *COLUMNS.values())
    with Progress(
        SpinnerColumn(), TextColumn("{task.description} {task.completed:g}"), TimeElapsedColumn()
    ) as progress:
        train(bench, epochs, lr, batch_size, progress)
        for number in epochs:
            task = progress.add_task(f"epoch {number}, films")
            bench.on_progress = lambda count, task=task: progress.update(task, advance=count)  # type: ignore[misc]
            values = score(bench, number)
            progress.update(task, total=1, completed=1)
            table.add_row(str(number), *(shown(values, name) for name in COLUMNS))
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
