"""The report's section on the final evaluation: tables and pictures, every string escaped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from analysis.final_scores import BASE, FinalScores, read_finalists
from analysis.metrics import METRICS
from analysis.report.paper import PaperTable, paper_tables, percent, with_interval
from analysis.report.subgroups import subgroups_section
from analysis.report.tables import NUMERIC, table
from analysis.report.words import ARROWS, number

TITLE = "Final evaluation on test patients"
QUIET = ' class="quiet"'
SCORE_WORDS = {"auc": "AUC", "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "f1": "F1"}
IN_THE_PAPER = ("fid", "vendi")
"""Metrics that the tables after the paper have."""
ARMS = {"real": "real films", "synthetic": "synthetic films", "mixed": "half of each"}
PICTURES = {
    "samples.png": "generated for captions of test films",
    "copies.png": "left, and the training films they repeat",
}
UTILITY_INTERVALS = (
    "Intervals of real films cover the classifier's seeds. So do those of arms with synthetic films where a finalist was "
    "trained once; where it was trained three times or more, theirs cover the trainings of the generator, each with the mean over "
    "the classifier's seeds. Neither covers the choice of films."
)
FALSE_ALARMS = (
    "False alarms keep to the allowed share, with the confidence given, if generated films resembled real ones as held-out "
    'films do. Generated films may be smoother, and nearer to all films. "Sets exchanged" is the share of the same films '
    "that would count as copies of held-out films, which nobody trained on: their own false alarms. A share of copies that is "
    "not well above it shows no copying."
)


def final_section(run: Path, sheet: Callable[[Path, str], str]) -> str:
    """The section, or nothing where no finalist was evaluated.

    Args:
        run: the run directory.
        sheet: a picture with its caption, as the page shows it.

    Raises:
        ValueError: a file is damaged.
    """
    comparable = read_finalists(run)
    everyone = comparable.finalists
    finalists = [finalist for finalist in everyone if finalist.trial_id != BASE]
    if not finalists:
        return ""
    parts = [f"<h2>{TITLE}</h2>", _introduction(finalists[0])]
    parts += [f"<p class='quiet'>{escape(comparable.note)}</p>"] if comparable.note else []
    parts += [_paper_table(paper) for paper in paper_tables(finalists)]
    parts += [
        _fidelity(finalists),
        _utility(finalists),
        subgroups_section(finalists),
        _privacy(everyone),
        _autoencoder(everyone),
        _probe(everyone),
    ]
    return "".join([*parts, _failures(everyone), _pictures(finalists, sheet)])


def _introduction(finalist: FinalScores) -> str:
    settings, extractor = finalist.record["settings"], finalist.record["extractor"]
    classifier = finalist.record["studies"].get("alignment", {}).get("details", {}).get("classifier", {})
    text = (
        "Trials were selected on validation patients, in the tables above. Here films are compared with those of test "
        "patients, whom neither training nor selection has seen, except where the list below names other patients. For the "
        "caption of each test film, and of each training film, one film is generated, at most "
        f"{settings['images_per_condition']} drawn for one condition of a split, with the same noise for all trials. Extractor "
        f"{extractor['name']} ({extractor['weights_hash'][:12]}), classifier {classifier.get('architecture', 'none')} "
        f"({str(classifier.get('weights_hash', 'none'))[:12]}), trained on real training films."
    )
    splits = {name: study.get("inputs", {}).get("splits") for name, study in finalist.record["studies"].items()}
    items = "".join(f"<li>{escape(name)}: {escape(words)}</li>" for name, words in splits.items() if words)
    return f"<p class='quiet'>{escape(text)}</p>" + (f"<ul class='quiet'>{items}</ul>" if items else "")


def _paper_table(paper: PaperTable) -> str:
    head = [name if position < 2 else f"{name}{NUMERIC}" for position, name in enumerate(paper.head)]
    rows = [_row(row) for row in paper.rows] + [_row(row, quiet=True) for row in paper.references]
    return f"<p><b>{escape(paper.title)}</b></p>{table(head, rows)}<p class='quiet'>{escape(paper.note)}</p>"


def _fidelity(finalists: Sequence[FinalScores]) -> str:
    """All metrics over all films."""
    extractor = str(finalists[0].record["extractor"]["name"])
    further = {metric.reported_name(extractor): metric for name, metric in METRICS.items() if name not in IN_THE_PAPER}
    columns = {
        f"fid_infinite_{extractor}": "FID at infinitely many ↓",
        **{name: f"{metric.label} {ARROWS[metric.direction]}" for name, metric in further.items()},
        "ms_ssim": "MS-SSIM within conditions ↓",
        "ms_ssim_real": "MS-SSIM of real films",
        "num_films": "films of each kind",
    }
    return _values_table(
        "Fidelity and diversity over all films, with 95 % intervals where they hold", columns, finalists
    )


def _utility(finalists: Sequence[FinalScores]) -> str:
    """One row a finalist and arm."""
    rows = [
        _row(
            (
                finalist.trial_id,
                finalist.strategy,
                words,
                *(with_interval(finalist, f"utility_{score}/{arm}") for score in SCORE_WORDS),
            )
        )
        for finalist in finalists
        for arm, words in ARMS.items()
        if finalist.value(f"utility_auc/{arm}") is not None
    ]
    if not rows:
        return ""
    head = ["trial", "strategy", f"trained on{NUMERIC}", *(f"{words} ↑{NUMERIC}" for words in SCORE_WORDS.values())]
    title = "Classifiers trained on equally many films, tested on real ones: means over conditions, 95 % intervals"
    return f"<p><b>{escape(title)}</b></p>{table(head, rows)}<p class='quiet'>{escape(UTILITY_INTERVALS)}</p>"


def _privacy(everyone: Sequence[FinalScores]) -> str:
    columns = {
        "memorisation_share": "share of copies ↓",
        "memorisation_share_exchanged": "the same, sets exchanged",
        "memorisation_max_false_alarms": "share allowed to be false alarms",
        "memorisation_confidence": "confidence in that",
        "memorisation_ratio_pixels": "median distance ratio, pixels",
        "memorisation_ratio_features": "median distance ratio, features",
        "membership_auc": "membership AUC, beside the base's",
    }
    title = "What the films and the loss give away of training films; ratios near 1 are harmless"
    shown = _values_table(title, columns, everyone)
    return f"{shown}<p class='quiet'>{escape(FALSE_ALARMS)}</p>" if shown else ""


def _autoencoder(everyone: Sequence[FinalScores]) -> str:
    columns = {"vae_rmse": "RMSE ↓", "vae_psnr": "PSNR (dB) ↑", "vae_ssim": "SSIM ↑"}
    columns |= {f"vae_fid_{everyone[0].record['extractor']['name']}": "FID ↓", "vae_agreement": "equal decisions ↑"}
    columns |= {"vae_auc_change": "change of AUC", "vae_cnr_kept": "contrast-to-noise kept ↑"}
    return _values_table("Test films through the autoencoder and back", columns, _with(everyone, "autoencoder"))


def _probe(everyone: Sequence[FinalScores]) -> str:
    columns = {"probe_auc": "AUC of a linear probe ↑", "probe_num_prompts": "captions"}
    return _values_table("What caption embeddings tell of conditions", columns, _with(everyone, "text_probe"))


def _with(everyone: Sequence[FinalScores], study: str) -> list[FinalScores]:
    return [finalist for finalist in everyone if study in finalist.record["studies"]]


def _values_table(title: str, columns: dict[str, str], finalists: Sequence[FinalScores]) -> str:
    """One row a finalist; a column that nobody has a number in is left out."""
    shown = {
        name: words
        for name, words in columns.items()
        if any(finalist.value(name) is not None for finalist in finalists)
    }
    if not shown:
        return ""
    head = ["trial", "strategy", *(f"{words}{NUMERIC}" for words in shown.values())]
    rows = [
        _row((finalist.trial_id, finalist.strategy, *(with_interval(finalist, name) for name in shown)))
        for finalist in finalists
    ]
    return f"<p><b>{escape(title)}</b></p>{table(head, rows)}"


def _row(cells: Sequence[str], *, quiet: bool = False) -> str:
    trial, strategy, *numbers = (escape(cell) for cell in cells)
    name = trial if quiet or not trial else f"<code>{trial}</code>"
    right = "".join(f'<td class="n">{cell}</td>' for cell in numbers)
    return f"<tr{QUIET if quiet else ''}><td>{name}</td><td>{strategy}</td>{right}</tr>"


def _failures(everyone: Sequence[FinalScores]) -> str:
    items = "".join(
        f"<li><code>{escape(finalist.trial_id)}</code> {escape(study)}: {escape(error)}</li>"
        for finalist in everyone
        for study, error in finalist.failures().items()
    )
    return f"<p><b>Studies that failed</b></p><ul class='quiet'>{items}</ul>" if items else ""


def _pictures(finalists: Sequence[FinalScores], sheet: Callable[[Path, str], str]) -> str:
    real = finalists[0].picture("real.png")
    sheets = [sheet(real, "Real test films of the same captions")] if real else []
    for finalist in finalists:
        for name, words in PICTURES.items():
            if path := finalist.picture(name):
                sheets.append(sheet(path, _caption(finalist, name, words)))
    return f'<div class="sheets">{"".join(sheets)}</div>'


def _caption(finalist: FinalScores, name: str, words: str) -> str:
    share = percent(finalist.values.get("memorisation_share"))
    copies = number(finalist.values.get("memorisation_num_copies"))
    first = (
        f"{copies} generated films ({share} %) count as copies, some of them on the " if name == "copies.png" else ""
    )
    return f"{finalist.strategy}, trial {finalist.trial_id}: {first}{words}"
