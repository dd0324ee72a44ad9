"""A recording of real learning curves: configurations trained to their end, and scored at every rung.

python -m sweep.prepare nih_cxr14 --root ROOT --to prepared/nih_cxr14_64_240 --num-train 240
python -m benchmarks.record_curves --prepared prepared/nih_cxr14_64_240 --to benchmarks/recordings/nih64

Draws configurations of the mini space, quasi-random within each strategy, trains each on the prepared films and keeps
what it gave at once. It may be killed at any moment; the same command goes on. At its end, or at any time by `--merge`,
all that is there becomes one Parquet file with a card. The command goes on from that file too, without the parts, as
on another machine: what it holds is not made again.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from filelock import FileLock, Timeout
from rich.console import Console

from benchmarks.recordings.draws import STRATEGIES, Training
from benchmarks.recordings.merging import merge as merge_parts
from benchmarks.recordings.settings import BASELINE, Recording
from sweep.loading import load_config

if TYPE_CHECKING:
    from benchmarks.recordings.training import CurveScorer

DEFAULTS = (
    "training.num_epochs=9",
    "evaluation.num_steps=8",
    "evaluation.early_images_share=1.0",
    "evaluation.early_steps_share=1.0",
    "training.checkpoint_every_s=86400",  # a training that was broken off is made again from its start, to know its costs
)
RUNGS = (1, 3, 9)
PARTS = Path("runs/recordings")
POLL_S = 1.0
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def recording_of(
    prepared: Path,
    work: Path,
    to: Path,
    *,
    rungs: Sequence[int],
    strategies: Sequence[str],
    settings: Sequence[str],
    **counts: int,
) -> Recording:
    """The recording that the options describe.

    Raises:
        ConfigError: a setting is none.
        ValueError: the last rung is not the end of the training.
    """
    fixed = [f"data.path={prepared}", f"search.strategies={','.join(strategies)}"]
    config = load_config("nih64", None, [*DEFAULTS, *settings, *fixed]).located()
    num_epochs = config.training.num_epochs
    if list(rungs) != sorted(set(rungs)) or rungs[-1] != num_epochs or rungs[0] < 1:
        raise ValueError(
            f"`--rung` must be given in rising order, the last as many as the {num_epochs} epochs, but got {list(rungs)}. "
            f"Add --rung {num_epochs}, or set training.num_epochs."
        )
    at_rungs = config.training.model_copy(update={"evaluate_every_epochs": math.gcd(*rungs)})
    return Recording(
        config=config.model_copy(update={"training": at_rungs}),
        work=work.absolute(),
        to=to.absolute(),
        rungs=tuple(rungs),
        **counts,
    )


def work_on(recording: Recording) -> None:
    """Make what is missing in this process, one of several, as long as the one that started it is there."""
    import torch

    from benchmarks.recordings.training import scorer_of

    parent = multiprocessing.parent_process()

    def still_wanted() -> None:
        if parent is not None and not parent.is_alive():
            raise SystemExit("the process that started this one has gone")

    torch.set_num_threads(1)
    scorer, provenance = scorer_of(recording), provenance_of(recording)
    recording.keep_settings({name: provenance[name] for name in ("data_fingerprint", "base")})
    rehearse(recording, scorer, still_wanted)
    score_baseline(recording, scorer, provenance)
    make_missing(recording, scorer, provenance, still_wanted)


def make_missing(
    recording: Recording, scorer: CurveScorer, provenance: Mapping[str, Any], still_wanted: Callable[[], None]
) -> None:
    """Make the trainings that are neither done nor being made by another process, one after the other.

    Args:
        recording: which trainings, and where their parts are kept.
        scorer: scores them.
        provenance: kept with every part.
        still_wanted: called after each epoch; may raise to end the work.
    """
    from benchmarks.recordings.training import keep, record

    for training in recording.trainings:
        lock = FileLock(recording.work / "locks" / f"{training.name}.lock")
        try:
            with lock.acquire(timeout=0):
                if not recording.is_done(training):
                    keep(record(recording, training, scorer, still_wanted), provenance, recording.part(training))
        except Timeout:
            continue


def score_baseline(recording: Recording, scorer: CurveScorer, provenance: Mapping[str, Any]) -> None:
    """Score the un-adapted base, unless it has been or another process is at it."""
    from benchmarks.recordings.training import keep

    try:
        with FileLock(recording.work / "locks" / "baseline.lock").acquire(timeout=0):
            if not recording.has_baseline():
                rows = scorer.curve_point(None, recording.low_images)[0]
                keep({"rows": rows}, provenance, recording.work / BASELINE)
    except Timeout:
        return


def rehearse(recording: Recording, scorer: CurveScorer, still_wanted: Callable[[], None]) -> None:
    """Fill the caches and warm this process up by one epoch, so that its first training costs no more than the others."""
    from benchmarks.recordings.training import spec_of
    from trainables.trial import fine_tune

    class Deaf:
        def evaluate(self, adapter: Path, share_done: float) -> dict[str, float]:
            return {}

    short = recording.config.training.model_copy(update={"num_epochs": 1})
    training = Training(
        strategy="bitfit",
        number=0,
        seed=0,
        choice={"strategy": {"name": "bitfit"}, "lr": 1e-3, "batch_size": 32},
        params={},
    )
    spec = spec_of(recording, training).model_copy(
        update={"training": short, "folder": recording.work / "rehearsals" / str(os.getpid())}
    )
    fine_tune(spec, Deaf(), lambda report: still_wanted())
    assert len(scorer.held_out_features)
    shutil.rmtree(spec.folder)


def provenance_of(recording: Recording) -> dict[str, Any]:
    """Where the numbers come from: code, packages, machine, data, base."""
    from benchmarks.recordings.training import base_hash, prepared
    from sweep.records.provenance import collect_provenance

    provenance = collect_provenance(recording.config, prepared(recording).fingerprint, base_hash(recording))
    lasting = {
        name: value for name, value in provenance.items() if name not in ("command", "started")
    }  # of this process alone
    return {**lasting, "cpu": cpu_name()}


def cpu_name() -> str | None:
    """The processor as Linux calls it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def watch(recording: Recording, workers: Sequence[Any], console: Console) -> None:
    """Print a line for every training that ends, until the workers have ended."""
    seen = {training.name for training in recording.done()}
    total, started_s, before = len(recording.trainings), time.monotonic(), len(seen)
    console.print(f"{before} of {total} trainings are done.")
    while True:
        running = any(worker.is_alive() for worker in workers)
        for training in recording.done():
            if training.name not in seen:
                seen.add(training.name)
                each_s = (time.monotonic() - started_s) / (len(seen) - before)
                left_min = each_s * (total - len(seen)) / 60
                console.print(
                    f"{len(seen)} of {total}: {training.name}; about {left_min:.0f} min left", highlight=False
                )
        if not running:
            return
        time.sleep(POLL_S)


def make(recording: Recording, num_workers: int, console: Console) -> int:
    """Make what is missing, in as many processes; returns how many of them failed."""
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    context = multiprocessing.get_context("forkserver")  # imports once for all
    context.set_forkserver_preload(["benchmarks.recordings.training"])
    workers = [context.Process(target=work_on, args=(recording,), daemon=True) for _ in range(num_workers)]
    for worker in workers:
        worker.start()
    watch(recording, workers, console)
    return sum(worker.exitcode != 0 for worker in workers)


def main(
    to: Annotated[Path, typer.Option(help="Folder of the table and its card.")],
    prepared: Annotated[Path | None, typer.Option(help="Folder of prepared films; needed to record.")] = None,
    work: Annotated[Path | None, typer.Option(help="Folder of the parts. Default: in runs/recordings.")] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Record nothing; make the table of what is there.")] = False,
    workers: Annotated[int, typer.Option(help="Processes of one thread each.")] = 2,
    num: Annotated[int, typer.Option(help="Configurations.")] = 120,
    repeated: Annotated[int, typer.Option(help="Configurations that are trained with two further seeds.")] = 20,
    low_images: Annotated[int, typer.Option(help="Films per condition of the smaller score.")] = 8,
    rung: Annotated[
        list[int] | None, typer.Option(help=f"Epochs behind a score; may be repeated. Default: {RUNGS}.")
    ] = None,
    strategy: Annotated[list[str] | None, typer.Option(help="May be repeated. Default: fifteen.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE over preset nih64.")] = None,
) -> None:
    """Record learning curves, and make one table of them."""
    folder, console = work or PARTS / to.name, Console()
    if not merge:
        if prepared is None:
            raise typer.BadParameter("must name prepared films; or make the table of what is there with --merge")
        recording = recording_of(
            prepared,
            folder,
            to,
            rungs=rung or RUNGS,
            strategies=strategy or STRATEGIES,
            settings=set_ or (),
            num_configs=num,
            num_repeated=repeated,
            low_images=low_images,
        )
        failed = make(recording, workers, console)
        if failed:
            raise SystemExit(f"{failed} of {workers} workers failed; see above. The same command goes on.")
    card = merge_parts(folder, to)
    console.print(f"{to}: {card['num_trainings']} trainings, {card['num_rows']} rows, {card['bytes']:,} bytes.")


if __name__ == "__main__":
    typer.run(main)
