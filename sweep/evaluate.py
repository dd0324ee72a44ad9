"""`python -m sweep.evaluate`: the full evaluation of a run's finalists on test patients."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.front.picks import EXAMPLES, FINALIST_PICKS, pick_finalists
from analysis.run_folder import BASELINE_SHEET, SAMPLES_SHEET, RunFolder, word_maps_beside
from analysis.terminal import explained, new_console, relative
from sweep.records.owner import owned

if TYPE_CHECKING:
    from sweep.final.settings import FinalSettings


Boxes = Annotated[
    Path | None,
    typer.Option(help="Where findings lie: BBox_List_2017.csv, or the same columns for other films.", metavar="FILE"),
]
ImagesPerCondition = Annotated[
    int | None, typer.Option(min=2, help="The most films for one condition. Default: as in the sweep.")
]
Classifier = Annotated[
    str | None, typer.Option(help="Its architecture. Default: small up to 64 px, else efficientnet_b0.")
]
ClassifierWeights = Annotated[
    Path | None, typer.Option(help="Safetensors that classifiers start from.", metavar="FILE")
]
VerifierWeights = Annotated[
    Path | None,
    typer.Option(help="The Siamese network's, for the privacy score of the preset chexgenbench.", metavar="FILE"),
]
Retrain = Annotated[
    bool,
    typer.Option(
        "--retrain",
        help="Evaluate finalists of a training of several ranks beside LoRA that is trained at their rank alone.",
    ),
]
WordMaps = Annotated[
    bool,
    typer.Option(
        "--word-maps",
        help="Only map where the prompts' words act on the trials' films, for the report; on no test film.",
    ),
]


def main(
    run: Annotated[Path, typer.Option(help="The directory of a finished run.", metavar="DIR")],
    pick: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Which trials; may be repeated. Default: knee. {EXAMPLES}", metavar="|".join(FINALIST_PICKS)
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each finalist, the trial's own among them.")] = 1,
    retrain: Retrain = False,
    images_per_condition: ImagesPerCondition = None,
    classifier: Classifier = None,
    classifier_weights: ClassifierWeights = None,
    verifier_weights: VerifierWeights = None,
    boxes: Boxes = None,
    word_maps: WordMaps = False,
) -> None:
    """Evaluate the finalists of a run on test patients, whom no selection has seen.

    Fidelity, diversity, alignment, utility, memorisation, and what the encoders keep. What is done is kept: the same
    command goes on where it was stopped.

    Example: python -m sweep.evaluate --run runs/demo --pick knee --pick best:fid_mini --seeds 3
    Example: python -m sweep.evaluate --run runs/demo --pick front --word-maps
    """
    with explained(lambda: "What had finished is in the run directory; the same command goes on from there."):
        if word_maps:
            expect_alone(
                seeds=seeds if seeds > 1 else None,
                retrain=retrain or None,
                images_per_condition=images_per_condition,
                classifier=classifier,
                classifier_weights=classifier_weights,
                verifier_weights=verifier_weights,
                boxes=boxes,
            )
        opened = RunFolder.open(run.expanduser().resolve())
        trial_ids = pick_finalists(opened, pick or ["knee"])
        from sweep.final.settings import final_settings  # torch takes seconds to import; wrong input is answered before

        weights = {"initial_weights": classifier_weights, "verifier_weights": verifier_weights}
        settings = final_settings(opened, images_per_condition, classifier, **weights)
        with owned(opened.folder):
            if word_maps:
                map_words(opened, trial_ids)
            else:
                evaluate(opened, trial_ids, settings, boxes=boxes, num_seeds=seeds, trains_alone=retrain)


def expect_alone(**others: object) -> None:
    """Refuse options of the final evaluation beside `--word-maps`, which has no use for them.

    Raises:
        ValueError: one was given.
    """
    given = [f"--{name.replace('_', '-')}" for name, value in others.items() if value is not None]
    if given:
        raise ValueError(
            f"`--word-maps` must stand without {' and '.join(given)}, but got both. Maps are made instead of the final "
            "evaluation; give two commands."
        )


def map_words(run: RunFolder, trial_ids: Sequence[str]) -> None:
    """Map the words on the films of the un-adapted base and of these trials, and write the report anew.

    Raises:
        ValueError: the data do not show the conditions of the run.
        OSError: a file is missing.
    """
    from analysis.report import write_report
    from sweep.final.word_maps import scorer_of, write_word_maps

    scorer, console = scorer_of(run), new_console()
    sheets = {run.folder / BASELINE_SHEET: None} | {
        run.adapter(name).with_name(SAMPLES_SHEET): run.adapter(name) for name in trial_ids
    }
    for samples, adapter in sheets.items():
        write_word_maps(scorer, adapter, samples)
        console.print(f"Maps     {relative(word_maps_beside(samples))}", soft_wrap=True, markup=False)
    console.print(f"Report   {relative(write_report(run.folder))}", soft_wrap=True, markup=False)


def evaluate(
    run: RunFolder,
    trial_ids: Sequence[str],
    settings: FinalSettings,
    *,
    boxes: Path | None,
    num_seeds: int,
    trains_alone: bool = False,
) -> None:
    """Evaluate the finalists and write the report anew, showing progress.

    Args:
        run: the finished run.
        trial_ids: the finalists.
        settings: how.
        boxes: a list of where findings lie, if there is one.
        num_seeds: trainings of each finalist.
        trains_alone: whether those of a training of several ranks are trained at their rank alone besides.

    Raises:
        ValueError: the data, the boxes or the extractor do not fit.
        OSError: a file is missing.
    """
    from analysis.report import write_report
    from sweep.final.bench import Workbench
    from sweep.final.runner import FinalEvaluation

    console, bench = new_console(), Workbench(run, settings, boxes)
    if bench.boxes is not None:
        console.print(bench.boxes.summary, soft_wrap=True)
    for name, sample in bench.samples().items():
        if sample["films"] < sample["of"]:
            console.print(
                f"[yellow]note[/yellow] Classifiers see {sample['films']:,} of {sample['of']:,} {name} films."
            )
    evaluation = FinalEvaluation(bench, console, num_seeds=num_seeds, trains_alone=trains_alone)
    summary = evaluation.run(trial_ids)
    page = write_report(run.folder)
    if evaluation.num_failed:
        console.print(f"[yellow]{evaluation.num_failed} studies failed;[/yellow] the report says why.")
    table, report, folder = (shlex.quote(str(relative(path))) for path in (summary, page, run.folder))
    console.print(
        f"\nTable    {table}\nReport   {report}\nPaper    python -m analysis.report --run {folder} --tables",
        soft_wrap=True,
        markup=False,
    )


if __name__ == "__main__":
    typer.run(main)
