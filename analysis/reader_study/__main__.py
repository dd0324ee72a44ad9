"""`python -m analysis.reader_study`: what readers take for real."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from analysis.checks import expect
from analysis.files import whole_file
from analysis.front.picks import EXAMPLES, PICKS, pick_trial
from analysis.reader_study.films import as_records, chosen_films, read_films
from analysis.reader_study.page import study_page
from analysis.reader_study.scoring import ReaderScores, Share, read_json, score_answers
from analysis.run_folder import READERS, RunFolder
from analysis.terminal import explained, new_console

PAGE, KEY, ANSWERS = "index.html", "key.json", "answers*.json"


def main(
    run: Annotated[Path, typer.Option(help="The directory of a run with a final evaluation.", metavar="DIR")],
    to: Annotated[
        Path, typer.Option(help="The study's folder: new, or with --score that of the study.", metavar="DIR")
    ],
    pick: Annotated[str, typer.Option(help=f"Whose films. {EXAMPLES}", metavar="|".join(PICKS))] = "knee",
    num: Annotated[int, typer.Option(min=2, help="Films; half of them are real.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice and the order.")] = 0,
    score: Annotated[
        bool, typer.Option("--score", help="Score the answers in --to, and add them to the report.")
    ] = False,
) -> None:
    """Make a blinded page of real and generated films for readers, or score what they answered.

    Give readers index.html alone; key.json says what is what. Put the files that they save into the folder, then --score.

    Example: python -m analysis.reader_study --run runs/demo --pick knee --num 60 --to study
    """
    console = new_console()
    with explained():
        opened, to = RunFolder.open(run.expanduser()), to.expanduser()
        if score:
            score_study(opened, to, console)
        else:
            make_study(opened, pick, to, num=num, seed=seed)
            console.print(f"Wrote {to / PAGE} for readers and {to / KEY}, which they must not see.", markup=False)


def make_study(run: RunFolder, pick: str, to: Path, *, num: int, seed: int) -> None:
    """Write the page and the key.

    Args:
        run: with a final evaluation of the trial.
        pick: which trial; one of `PICKS`.
        to: a new or empty folder.
        num: of films, even.
        seed: draws the choice, the order and the names.

    Raises:
        FileNotFoundError: the trial has no final evaluation.
        FileExistsError: `to` holds something.
        ValueError: the pick is unknown, or there are too few films.
    """
    if to.exists() and any(to.iterdir()):
        raise FileExistsError(f"`--to` must be a new or empty folder, but got {to}, which is not. Choose another.")
    trial_id = pick_trial(run, pick)
    films = read_films(run, trial_id)
    shown = chosen_films(films.labels, num, seed)
    conditions = sorted({name for film in shown for name in film.conditions})
    content = {"trial_id": trial_id, "conditions": conditions, "films": as_records(shown)}
    # The study's name must tell readers nothing of the trial.
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]
    study = f"{run.folder.resolve().name}-{digest}"
    key = {"format": 1, "study": study, **content}
    for name, text in ((PAGE, study_page(study, shown, films, conditions)), (KEY, json.dumps(key, indent=2) + "\n")):
        with whole_file(to / name) as file:
            file.write(text.encode())


def score_study(run: RunFolder, to: Path, console: Console) -> None:
    """Score all answers in a study's folder, print and keep them, and write the report anew.

    Args:
        run: the one that the study is of.
        to: the study's folder, with the readers' answers.
        console: where the scores are printed.

    Raises:
        FileNotFoundError: it is no study's folder.
        ValueError: there are no answers, or they are not this study's.
    """
    from analysis.report import write_report

    key = read_json(to / KEY)
    known = set(run.trials["trial_id"].astype(str))
    expect(key["trial_id"] in known, "`--run` must be the run of the study", key["trial_id"], "Give its directory.")
    scores = score_answers(key, [read_json(file) for file in sorted(to.glob(ANSWERS))])
    with whole_file(run.folder / READERS) as file:
        file.write((json.dumps(scores.as_record(), indent=2) + "\n").encode())
    console.print(_table(scores))
    if scores.agreement is not None:
        agreement = scores.agreement
        console.print(
            f"Cohen's kappa between readers {agreement.kappa:.2f} [{agreement.low:.2f}, {agreement.high:.2f}]",
            markup=False,
        )
    console.print(f"Report   {write_report(run.folder)}", soft_wrap=True, markup=False)


def _table(scores: ReaderScores) -> Table:
    table = Table(title="Real or generated: share of right answers, 95 % intervals", title_justify="left")
    for name in ("", "right", "of", "share", "p of guessing"):
        table.add_column(name, justify="left" if not name else "right")
    for group in (scores.readers, scores.conditions):
        for name, share in group.items():
            table.add_row(name, str(share.count), str(share.num), _in_words(share), f"{share.p_chance:.2g}")
        table.add_section()
    for name, num in scores.too_few.items():
        table.add_row(name, "", str(num), "too few films", "")
    return table


def _in_words(share: Share) -> str:
    return f"{share.value:.2f} [{share.low:.2f}, {share.high:.2f}]"


if __name__ == "__main__":
    typer.run(main)
