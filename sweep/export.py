"""`python -m sweep.export`: take one trial out of a run, in a format that other programs read."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, get_args

import pandas as pd
import typer
from rich.console import Console

from analysis.final_scores import EVALUATION, SCORES, read_scores, values_of
from analysis.metrics import METRICS
from analysis.pareto import Direction, Front
from sweep.config import COST_OBJECTIVES, unknown_name
from sweep.folders import new_folder

if TYPE_CHECKING:
    from trainables.base_models.models import DiffusionModels
    from trainables.strategies import Strategy

Format = Literal["diffusers", "pipeline"]
EXPORT_CARD = "export.json"
PICKS = ("knee", "best:METRIC", "trial:ID")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run directory says of its trials."""

    folder: Path
    front: Front
    trials: pd.DataFrame
    config: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Read a run directory.

        Raises:
            FileNotFoundError: it is not the directory of a finished run.
        """
        for name in ("config.json", "pareto.json", "trials.parquet"):
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f"`--run` must be the directory of a finished run, but got {str(folder)!r}, which has no {name}. "
                    "Give the directory that `python -m sweep.run` printed."
                )
        config = json.loads((folder / "config.json").read_text())
        trials = pd.read_parquet(folder / "trials.parquet")
        return cls(folder=folder, front=Front.read(folder / "pareto.json"), trials=trials, config=config)

    def adapter(self, trial_id: str) -> Path:
        """The adapter folder that a trial exported."""
        return self.folder / "trials" / trial_id / "adapter"

    def completed(self) -> pd.DataFrame:
        """The trials that ran to their end."""
        return self.trials[self.trials["status"] == "completed"]

    def direction(self, metric: str) -> Direction | None:
        """Which way of a column is better, or none where it is no metric."""
        own = {objective.name: objective.direction for objective in self.front.objectives}
        of_kind = METRICS.get(metric.split("_")[0])
        return own.get(metric) or COST_OBJECTIVES.get(metric) or (of_kind.direction if of_kind else None)

    def metrics(self) -> list[str]:
        """The columns of which one can pick the best."""
        return [str(name) for name in self.trials.columns if self.direction(str(name)) is not None]


def pick_trial(run: Run, pick: str) -> str:
    """The id of the trial that `pick` names.

    Args:
        run: The finished run.
        pick: `knee`, `best:METRIC` or `trial:ID`.

    Raises:
        ValueError: the pick, the metric or the trial is unknown, or no trial qualifies.
    """
    kind, _, name = pick.partition(":")
    if pick == "knee":
        return _knee(run)
    if kind == "best" and name:
        return _best(run, name)
    if kind == "trial" and name:
        return _trial(run, name)
    raise ValueError(unknown_name("--pick", pick, PICKS))


def _knee(run: Run) -> str:
    if run.front.knee is None:
        raise ValueError("`knee` must be a point of the Pareto front, but got an empty front. Complete a trial first.")
    return run.front.knee.trial_id


def _best(run: Run, metric: str) -> str:
    direction = run.direction(metric)
    if metric not in run.trials.columns or direction is None:
        raise ValueError(unknown_name("--pick best:METRIC", metric, run.metrics()))
    scored = run.completed().dropna(subset=[metric])
    if scored.empty:
        raise ValueError(
            f"`best:{metric}` must have a completed trial with that metric, but got none. Pick by another metric."
        )
    return str(scored.sort_values(metric, ascending=direction == "min", kind="stable").iloc[0]["trial_id"])


def _trial(run: Run, trial_id: str) -> str:
    known = run.trials["trial_id"].astype(str)
    if trial_id not in set(known):
        raise ValueError(unknown_name("--pick trial:ID", trial_id, known))
    completed = run.completed()["trial_id"].astype(str)
    if trial_id not in set(completed):
        raise ValueError(
            f"`trial:ID` must be a completed trial, but got {trial_id!r}, which failed. "
            f"Pick one of {', '.join(completed) or 'none'}."
        )
    return trial_id


def export(run: Run, trial_id: str, *, format_: Format, to: Path, base: str) -> None:
    """Write a trial's adapter in another program's format; nothing is left at `to` if that fails.

    Args:
        run: The finished run.
        trial_id: One of its completed trials.
        format_: `diffusers`, files for `load_lora_weights` and `load_textual_inversion`, or `pipeline`, a folder for `from_pretrained`.
        to: A new or empty folder.
        base: The base model that the trial adapted, by name or folder.

    Raises:
        FileExistsError: `to` holds something.
        FileNotFoundError: the base or the adapter is not there.
        ValueError: the strategy has no such format, or the base is not the trial's.
    """
    with new_folder(to) as folder:
        from trainables.adapters import load_adapter  # torch takes seconds to import; wrong input is answered before
        from trainables.base_models.models import load_base
        from trainables.strategies.base import read_card

        card = read_card(run.adapter(trial_id))
        models = load_base(base)
        strategy = load_adapter(models, run.adapter(trial_id))
        _writer(format_)(models, strategy, folder)
        record = {"run": run.folder.name, "trial_id": trial_id, "format": format_, "adapter": card}
        (folder / EXPORT_CARD).write_text(json.dumps(record, indent=2) + "\n")


def _writer(format_: Format) -> Callable[[DiffusionModels, Strategy, Path], None]:
    from trainables.adapters import to_diffusers, to_pipeline

    return to_diffusers if format_ == "diffusers" else to_pipeline


def require_few_copies(run: Run, trial_id: str, limit: float | None) -> None:
    """Let a trial pass whose final evaluation found few enough copies of training films; without a limit any passes.

    Args:
        run: The finished run.
        trial_id: One of its trials.
        limit: Allowed share of copies among the generated films, in [0, 1].

    Raises:
        MemorisationError: the trial has not been evaluated, the study failed, or the share is above the limit.
        ValueError: the limit is not in [0, 1], or the scores are damaged.
    """
    if limit is None:
        return
    from analysis.memorisation import MemorisationError, gate_share  # torch takes seconds to import

    scores = read_scores(run.folder / EVALUATION / trial_id / SCORES)
    found = values_of(scores) if scores is not None else {}
    if scores is None or "memorisation_share" not in found or not _of_these_weights(scores, run.adapter(trial_id)):
        raise MemorisationError(
            f"`--max-copies` must have the trial's copies counted before, but got no count for {trial_id!r} as it is. "
            f"Count them with `python -m sweep.evaluate --run {run.folder} --pick trial:{trial_id}`."
        )
    gate_share(
        found["memorisation_share"], limit,
        num_copies=int(found["memorisation_num_copies"]), num_films=int(found["memorisation_num_generated"]),
    )  # fmt: skip


def _of_these_weights(scores: Mapping[str, Any], adapter: Path) -> bool:
    from sweep.identity import weights_digest
    from trainables.strategies.base import read_card

    return bool(scores["weights"] == weights_digest(read_card(adapter)["base"]["weights_hash"], adapter))


def parse_format(name: str) -> Format:
    """The format of that name; an unknown name is answered with the nearest valid ones."""
    for known in get_args(Format):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise ValueError(unknown_name("--format", name, get_args(Format)))


def next_steps(format_: Format, to: Path, base: str) -> str:
    """What the user can do with the export, which is at `to`."""
    if format_ == "pipeline":
        shown = shlex.quote(str(to))
        return (
            f"Sample it: python -m sweep.generate --adapter {shown} --prompt 'Chest X-ray of a subject with edema' "
            f"--num-images 4 --seed 0 --to images\nOr load it: StableDiffusionPipeline.from_pretrained({str(to)!r})"
        )
    lines = [f"Load it with diffusers, on the base {base!r}:"]
    tokens = sorted((to / "tokens").glob("*.safetensors"))
    if any(to.glob("*.safetensors")):
        lines.append(f"    pipeline.load_lora_weights({str(to)!r})")
    if tokens:
        files = f"[str(file) for file in sorted(Path({str(to / 'tokens')!r}).glob('*.safetensors'))]"
        lines.append(f"    pipeline.load_textual_inversion({files})")
    lines.append(
        f"    pipeline.scheduler = DPMSolverMultistepScheduler.from_pretrained({str(to)!r}, subfolder='scheduler')"
    )
    if tokens:
        lines.append(f"and write the tokens in its prompts: {', '.join(f'<{file.stem}>' for file in tokens)}")
    return "\n".join(lines)


def fail(message: str) -> NoReturn:
    """Say what was wrong, and end with exit code 1."""
    Console(stderr=True, highlight=False).print("error", style="red", end=" ")
    Console(stderr=True, highlight=False).print(message, markup=False, soft_wrap=True)
    raise typer.Exit(1)


def main(
    run: Annotated[Path, typer.Option(help="The directory of a finished run.", metavar="DIR")],
    to: Annotated[Path, typer.Option(help="A new or empty folder.", metavar="DIR")],
    pick: Annotated[str, typer.Option(help="Which trial.", metavar="|".join(PICKS))] = "knee",
    format_: Annotated[
        str, typer.Option("--format", help="For which program.", metavar="diffusers|pipeline")
    ] = "pipeline",
    max_copies: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Refuse an adapter with a larger share of copies.", metavar="SHARE"),
    ] = None,
    base: Annotated[str | None, typer.Option(help="The run's base model, if it has moved.", metavar="NAME|DIR")] = None,
) -> None:
    """Export one trial of a run: its LoRA or tokens for diffusers, or the whole adapted pipeline.

    Example: python -m sweep.export --run runs/demo --pick best:fid_mini --format pipeline --to exported
    """
    console = Console(highlight=False)
    try:
        chosen, finished = parse_format(format_), Run.read(run.expanduser())
        trial_id = pick_trial(finished, pick)
        require_few_copies(finished, trial_id, max_copies)
        base = base or str(finished.config["base"])
        with console.status(f"Exporting {trial_id} on {base} ..."):
            export(finished, trial_id, format_=chosen, to=to.expanduser(), base=base)
    except (ValueError, OSError, RuntimeError) as error:
        fail(str(error))
    console.print(f"Wrote trial {trial_id} to {to}.\n{next_steps(chosen, to, base)}", soft_wrap=True, markup=False)


if __name__ == "__main__":
    typer.run(main)
