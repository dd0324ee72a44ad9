"""What the engine costs a trial, beside a plain Tune trial with a worker group: `python -m benchmarks.engine_overhead`."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import ray
import ray.train
import typer
from optuna import Trial
from PIL import Image
from ray import tune
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback
from rich.console import Console
from rich.table import Table

from analysis.front.statuses import COMPLETED
from sweep.config import ComputeConfig, SearchConfig, SweepConfig
from sweep.records.journal import Journal
from sweep.records.tracking import Tracker, TrackingListener
from sweep.search.samplers import SEARCH_SAMPLERS
from sweep.search.searcher import OptunaSearcher
from sweep.trials.ends import TrialEnd, TrialListener
from sweep.trials.runtime import ray_runtime
from sweep.trials.tuner import TUNE_SETTINGS, SweepContext, run_trials
from trainables.datasets.base import ImageTextSample, ImageTextSource, SourceOptions
from trainables.datasets.writing import write_dataset
from trainables.settings import TrainingConfig
from trainables.trial import TrialSpec, fine_tune

NUM_IMAGES = 4
TARGET_S = 0.5


class FewFilms(ImageTextSource):
    """A handful of films of noise in each split, so that a trial is one step long."""

    name: ClassVar[str] = "few"
    conditions = ("No Finding",)
    resolution_px = 64

    @classmethod
    def create(cls, options: SourceOptions) -> Self:
        """There is nothing to choose."""
        return cls()

    def samples(self, split: str) -> Iterator[ImageTextSample]:
        """The films of a split."""
        random = np.random.default_rng(len(split))
        for number in range(NUM_IMAGES):
            image = random.integers(0, 256, (self.resolution_px, self.resolution_px), dtype=np.uint8)
            name = f"{split}{number}"
            yield ImageTextSample(
                image=image, prompt="chest film", conditions=self.conditions, patient_id=name, image_id=name
            )

    def num_samples(self, split: str) -> int:
        """Films in a split."""
        return NUM_IMAGES

    def fingerprint(self) -> str:
        """The same always."""
        return "few"


@dataclass(frozen=True)
class NumbersOnly:
    """An evaluator that takes no time."""

    def evaluate(self, adapter: Path, share_done: float) -> Mapping[str, float]:
        """Numbers that depend on the adapter's name alone; the sheet of samples is one white point."""
        Image.new("L", (1, 1), 255).save(adapter.parent / "samples.png")
        score = sum(map(ord, str(adapter))) % 97
        return {"fid_mini": float(score), "vendi_mini": 1.0 + 1.0 / (1 + score)}


def one_step(trial: Trial, strategies: Sequence[str] = ("bitfit",)) -> dict[str, Any]:
    """The shortest trial that is a trial: BitFit, one batch."""
    name = trial.suggest_categorical("strategy", tuple(strategies))
    lr = trial.suggest_float(f"{name}/lr", 1e-4, 1e-3, log=True)
    return {"strategy": {"name": name}, "lr": lr, "batch_size": NUM_IMAGES}


@dataclass
class Ends(TrialListener):
    """When each trial ended, and how many failed."""

    at_s: list[float] = field(default_factory=list)
    num_failed: int = 0

    def on_end(self, trial_id: str, end: TrialEnd) -> None:
        """Note the time."""
        self.at_s.append(time.perf_counter())
        self.num_failed += end.kind != COMPLETED

    def marginal_s(self) -> float:
        """Mean time from the end of one trial to the end of the next."""
        return (self.at_s[-1] - self.at_s[0]) / (len(self.at_s) - 1)


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """What was measured, in seconds."""

    num_trials: int
    num_plain_trials: int
    ray_start_s: float
    engine_total_s: float
    """From the first call to the last record in MLflow, without starting Ray."""
    engine_per_trial_s: float
    engine_with_ray_start_per_trial_s: float
    engine_marginal_s: float
    plain_per_trial_s: float

    def ratio(self) -> float:
        """How many trials of the engine, start-up included, a plain trial lasts."""
        return self.plain_per_trial_s / self.engine_with_ray_start_per_trial_s


def main(
    trials: Annotated[int, typer.Option(min=2, help="Trials of the engine.")] = 40,
    plain_trials: Annotated[int, typer.Option(min=1, help="Plain Tune trials with a worker group each.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Measure both in one Ray session; a trial trains BitFit on four films for one step, and its evaluator is a sum.

    Example: python -m benchmarks.engine_overhead --trials 40
    """
    os.environ.update(TUNE_SETTINGS)
    logging.getLogger("ray").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), trials, plain_trials)
    if as_json:
        print(json.dumps({**asdict(measured), "ratio": measured.ratio()}, indent=2))
    else:
        Console().print(table_of(measured))


def measure(folder: Path, num_trials: int, num_plain_trials: int) -> Overhead:
    """Run both sweeps, one after the other."""
    dataset = write_dataset(FewFilms(), folder / "dataset").folder
    training = TrainingConfig(num_epochs=1, mixed_precision="no")
    context = SweepContext(
        base="mini",
        dataset=dataset,
        out=folder,
        seed=0,
        training=training,
        compute=ComputeConfig(),
        objectives=tuple(objective.name for objective in SweepConfig().reported_objectives()),
    )
    started_s = time.perf_counter()
    with ray_runtime(context.compute):
        ray_start_s = time.perf_counter() - started_s
        engine_s, marginal_s = time_engine(context, num_trials)
        plain_s = time_plain(context, num_plain_trials)
    return Overhead(
        num_trials=num_trials,
        num_plain_trials=num_plain_trials,
        ray_start_s=ray_start_s,
        engine_total_s=engine_s,
        engine_per_trial_s=engine_s / num_trials,
        engine_with_ray_start_per_trial_s=(ray_start_s + engine_s) / num_trials,
        engine_marginal_s=marginal_s,
        plain_per_trial_s=plain_s / num_plain_trials,
    )


def time_engine(context: SweepContext, num_trials: int) -> tuple[float, float]:
    """Seconds of a sweep with journal and tracker, and of a further trial."""
    config, ends = SweepConfig(search=SearchConfig(num_trials=num_trials)), Ends()
    started_s = time.perf_counter()
    journal, tracker = Journal.open(context.out, config, {}), Tracker.start(config, context.out)
    objectives = config.reported_objectives()
    searcher = OptunaSearcher(one_step, objectives, sampler=SEARCH_SAMPLERS["tpe"], num_trials=num_trials, seed=0)
    listeners = (journal, TrackingListener(tracker, context.out), ends)
    run_trials(context, NumbersOnly(), searcher, listeners=listeners)
    tracker.finish(journal.finish())
    if ends.num_failed:
        raise RuntimeError(f"`trials` must all complete, but got {ends.num_failed} failures: {journal.tables.trials()}")
    return time.perf_counter() - started_s, ends.marginal_s()


def time_plain(context: SweepContext, num_trials: int) -> float:
    """Seconds of as many trials as Ray's own guide writes them: each starts a group of one worker."""

    def trial(choice: dict[str, Any]) -> None:
        name = tune.get_context().get_trial_id()
        folder = context.out / "plain" / name
        spec = TrialSpec(
            base=context.base,
            dataset=context.dataset,
            folder=folder,
            cache_folder=context.out / "cache",
            seed=0,
            training=context.training,
            strategy={"name": "bitfit"},
            lr=choice["lr"],
            batch_size=NUM_IMAGES,
        )
        folder.mkdir(parents=True)
        TorchTrainer(
            lambda: fine_tune(spec, NumbersOnly(), ray.train.report),
            scaling_config=ray.train.ScalingConfig(num_workers=1),
            run_config=ray.train.RunConfig(
                name=name, storage_path=str(context.out / "plain-train"), callbacks=[TuneReportCallback()]
            ),
        ).fit()

    tuner = tune.Tuner(
        tune.with_resources(trial, {"CPU": 0.01}),
        param_space={"lr": tune.loguniform(1e-4, 1e-3)},
        tune_config=tune.TuneConfig(num_samples=num_trials, max_concurrent_trials=1),
        run_config=tune.RunConfig(name="plain", storage_path=str(context.out / "plain-tune"), verbose=0),
    )
    started_s = time.perf_counter()
    results = tuner.fit()
    took_s = time.perf_counter() - started_s
    if results.num_errors:
        raise RuntimeError(f"`plain trials` must all complete, but got {results.errors}")
    return took_s


def table_of(measured: Overhead) -> Table:
    """The numbers for the terminal."""
    table = Table(title=f"Seconds a trial (one step of BitFit; target {TARGET_S} for the engine)", title_justify="left")
    for name, justify in (("", "left"), ("trials", "right"), ("s a trial", "right"), ("plain / this", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    rows = {
        "plain Tune trial, group of one worker": (measured.num_plain_trials, measured.plain_per_trial_s),
        "engine, all included, Ray's start too": (measured.num_trials, measured.engine_with_ray_start_per_trial_s),
        "engine, all included but Ray's start": (measured.num_trials, measured.engine_per_trial_s),
        "engine, one more trial": (measured.num_trials, measured.engine_marginal_s),
    }
    for name, (num_trials, seconds) in rows.items():
        table.add_row(name, str(num_trials), f"{seconds:.3f}", f"{measured.plain_per_trial_s / seconds:.1f}")
    return table


if __name__ == "__main__":
    typer.run(main)
