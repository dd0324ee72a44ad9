"""The card of an exported adapter, in the hub's format."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from analysis.final_scores import BASE, FinalScores, read_finalists
from analysis.report.paper import PaperTable, paper_tables, percent, with_interval
from analysis.report.subgroups import FIGURES, NOTE, subgroup_rows
from analysis.report.words import ARROWS, label, number, parameters
from analysis.run_folder import RunFolder
from sweep.publishing.origin import Origin
from trainables.naming import without_folders
from trainables.settings import AugmentationConfig

CARD_FILE = "README.md"
SAMPLES = "samples.png"
METRICS = ("fid_{}", "vendi_{}")
"""Metrics of the final evaluation that the hub is given as results."""
LICENSES = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "creativeml-openrail-m",
    "CompVis/stable-diffusion-v1-4": "creativeml-openrail-m",
    "mini": "apache-2.0",
}
"""Licences of base models, by their source; what is made from a base is bound by its licence."""
LIMITS = """\
- Generated films are not for clinical use: no diagnosis, no training of clinical software without a study of its own on real films.
- They show what the training films and their labels say, with these films' errors, devices, hospitals and patients.
- What was not evaluated above is not known: other findings than those of the tables, other resolutions, other prompts.
- Scores compare films by the named extractor and classifier. A good score does not show that a radiologist would agree.
- Few copies of training films found does not prove that none can be drawn out of the model."""


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What a card says beside what the run knows.

    Attributes:
        name: of the model, such as `owner/name` on the hub.
        license: as the hub names it; None: the base's, where it is known.
        how_to_load: lines for the terminal, where the folder is `adapter`.
        max_copies: the share of copies that the memorisation gate let pass; None where there was no gate.
    """

    name: str
    license: str | None
    how_to_load: str
    max_copies: float | None = None


def finalist_of(run: RunFolder, trial_id: str) -> FinalScores:
    """The final evaluation of a trial.

    Raises:
        ValueError: it has none.
    """
    finalists = read_finalists(run.folder).finalists
    finalist = next((finalist for finalist in finalists if finalist.trial_id == trial_id), None)
    if finalist is None:
        raise ValueError(
            f"`--card` must be of a trial with a final evaluation, but got {trial_id!r} without. "
            f"Evaluate it first: python -m sweep.evaluate --run {run.folder} --pick trial:{trial_id}"
        )
    return finalist


def write_card(origin: Origin, publication: Publication, folder: Path) -> None:
    """Write a card and the films that it shows beside an export.

    Args:
        origin: what the run knows.
        publication: what else the card says.
        folder: of the export.

    Raises:
        ValueError: the trial has no final evaluation.
    """
    scores = finalist_of(origin.run, origin.trial_id)
    if picture := scores.picture(SAMPLES) or origin.run.samples(origin.trial_id):
        shutil.copyfile(picture, folder / SAMPLES)
    data = _card_data(origin, publication, scores)
    body = _body(origin, publication, scores, has_picture=picture is not None)
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}").save(folder / CARD_FILE)


def _card_data(origin: Origin, publication: Publication, scores: FinalScores) -> ModelCardData:
    strategy, source = str(origin.adapter["strategy"]), str(origin.adapter["base"].get("source", ""))
    tags = ["stable-diffusion", "stable-diffusion-diffusers", "chest-x-ray", "radiology", "medical", "synthetic-data"]
    tags += (
        ["lora"] if {"lora", "dora", "adalora", "dylora", "nested_lora", "selora"} & set(strategy.split("+")) else []
    )
    license_ = publication.license or LICENSES.get(source)
    return ModelCardData(
        license=license_ or "other",
        license_name=None if license_ else "see-below",
        base_model=source if "/" in source else None,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        language="en",
        inference=False,
        tags=[*tags, strategy],
        model_name=publication.name,
        eval_results=_results(origin, scores),
    )


def _results(origin: Origin, scores: FinalScores) -> list[EvalResult]:
    extractor = str(scores.record["extractor"]["name"])
    dataset = str(origin.dataset.get("name", "films of the run"))
    named = {name.format(extractor): label(name.format(extractor)) for name in METRICS}
    figures = {name: (words, scores.value(name)) for name, words in named.items()}
    return [
        EvalResult(
            task_type="text-to-image",
            dataset_type=dataset,
            dataset_name=f"{dataset}, test patients",
            dataset_split="test",
            metric_type=name.partition("_")[0],
            metric_name=words,
            metric_value=round(value, 4),
        )
        for name, (words, value) in figures.items()
        if value is not None
    ]


def _body(origin: Origin, publication: Publication, scores: FinalScores, *, has_picture: bool) -> str:
    strategy, base = origin.adapter["strategy"], origin.adapter["base"].get("source", "")
    picture = f"![Films generated for captions of test films]({SAMPLES})\n" if has_picture else ""
    sections = {
        "What was trained on what": _training(origin),
        "How to prompt": origin.prompts if origin.dataset else "As the captions of its training films.",
        "How to load": _loading(publication),
        "Place on the front": _front(origin),
        "Final evaluation on test patients": _evaluation(scores, origin.run),
        "Copies of training films": _copies(scores, publication.max_copies),
        "Limits": LIMITS,
        "Licence": _license(publication.license or LICENSES.get(str(base)), str(base)),
    }
    head = (
        f"# {publication.name}\n\n`{strategy}` on `{base}`: synthetic chest radiographs from text. Trial "
        f"{origin.trial_id}, {origin.place}.\n\n{picture}"
    )
    return "\n\n".join([head, *(f"## {title}\n\n{text}" for title, text in sections.items())]) + "\n"


def _loading(publication: Publication) -> str:
    """The terminal's lines, of which those that are indented are code."""
    fetch = f"    hf download {publication.name} --local-dir adapter" if "/" in publication.name else ""
    lines = publication.how_to_load.splitlines()
    parts = [
        fetch,
        *(("\n" if code else "\n\n").join(block) for code, block in groupby(lines, lambda line: line.startswith(" "))),
    ]
    return "\n\n".join(part for part in parts if part)


def _training(origin: Origin) -> str:
    row = origin.run.trials[origin.run.trials["trial_id"].astype(str) == origin.trial_id].iloc[0].to_dict()
    searched = dict(origin.point.params) if origin.point else {}
    hyperparameters = without_folders({**origin.adapter["hyperparameters"], **searched})
    data, training = origin.dataset, origin.run.config.get("training", {})
    films = data.get("num_samples", {})
    packages = origin.provenance.get("packages", {})
    facts: dict[str, Any] = {
        "strategy": f"`{origin.adapter['strategy']}`: {parameters(hyperparameters, str(origin.adapter['strategy']))}",
        "base model": f"{origin.adapter['base'].get('source')}, weights {origin.adapter['base'].get('weights_hash')}",
        "trainable parameters": number(row.get("trainable_parameters")),
        "films": f"{data.get('name', 'unknown')}: "
        + ", ".join(f"{number(count)} {split}" for split, count in films.items())
        + f", split by patient, {data.get('resolution_px', '?')} px",
        "data's fingerprint": data.get("fingerprint", "unknown"),
        "augmentation": _augmentation(training.get("augmentation", {})),
        "epochs": training.get("num_epochs"),
        "seed": origin.run.config.get("seed"),
        "made with": ", ".join(
            f"{name} {packages[name]}" for name in ("radiograph-sweep", "torch", "diffusers") if name in packages
        ),
        "commit": origin.provenance.get("git_commit"),
    }
    return _table(
        ("property", "value"), [(name, str(value)) for name, value in facts.items() if value not in (None, "")]
    )


def _augmentation(settings: Mapping[str, Any]) -> str:
    """How training films were varied; nothing where they were not."""
    config = AugmentationConfig(**settings)
    facts = config.model_dump(exclude_defaults=True) | {"variants": config.variants}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items()) if config.is_on else ""


def _front(origin: Origin) -> str:
    objectives = origin.run.front.objectives
    names = [f"{label(objective.name)} {ARROWS[objective.direction]}" for objective in objectives]
    rows = []
    for point in origin.run.front.points:
        mark = "**" if point.trial_id == origin.trial_id else ""
        cells = (point.trial_id, point.strategy, *(number(point.values[objective.name]) for objective in objectives))
        rows.append(tuple(f"{mark}{cell}{mark}" for cell in cells))
    note = "\n\nScores in this table are those on validation patients by which trials were selected. This one: bold."
    return _table(("trial", "strategy", *names), rows) + note


def _evaluation(scores: FinalScores, run: RunFolder) -> str:
    everyone = [
        finalist for finalist in read_finalists(run.folder).finalists if finalist.trial_id in (scores.trial_id, BASE)
    ]
    extractor = scores.record["extractor"]
    parts = [
        f"Extractor {extractor['name']} ({str(extractor['weights_hash'])[:12]}), {_repetitions(scores)}. In brackets: 95 % "
        "intervals, where they hold."
    ]
    selected = [finalist for finalist in everyone if finalist.trial_id == scores.trial_id]
    parts += [_paper_table(table) for table in paper_tables(selected)]
    if rows := subgroup_rows(scores):
        head = ("group", *(figure.words for figure in FIGURES.values()))
        parts.append(f"### Subgroups of patients\n\n{_table(head, rows)}\n\n{NOTE}")
    failed = "".join(f"\n- {study}: {error}" for study, error in scores.failures().items())
    return "\n\n".join([*parts, *([f"Studies that failed:\n{failed}"] if failed else [])])


def _repetitions(scores: FinalScores) -> str:
    return f"{scores.num_seeds} trainings" if scores.num_seeds > 1 else "one training"


def _paper_table(table: PaperTable) -> str:
    return f"### {table.title}\n\n{_table(table.head, [*table.rows, *table.references])}\n\n{table.note}"


def _copies(scores: FinalScores, limit: float | None) -> str:
    if "memorisation_share" not in scores.values:
        return "Not counted: the study of copies did not complete."
    share, allowed = scores.value("memorisation_share"), scores.value("memorisation_max_false_alarms")
    count, films = scores.values["memorisation_num_copies"], scores.values.get("memorisation_num_generated")
    gate = "" if limit is None else f" The export was let pass by its gate of at most {percent(limit)} %."
    return (
        f"{number(count)} of {number(films)} generated films ({percent(share)} %) count as copies of training films, where up "
        f"to {percent(allowed)} % may be false alarms; with the sets exchanged, "
        f"{percent(scores.value('memorisation_share_exchanged'))} %. Membership of a film in the training set by its loss: AUC "
        f"{with_interval(scores, 'membership_auc')} (0.5 gives nothing away).{gate}"
    )


def _license(name: str | None, base: str) -> str:
    if name is None:
        return (
            f"That of the base model `{base}`, which this project does not know, and of the training films. Look them up "
            "before you use or pass on the adapter."
        )
    of_base = "from" if LICENSES.get(base) == name else "as chosen by who exported it; see that of"
    return f"`{name}`, {of_base} the base model `{base}`. The terms of the training films apply besides."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [tuple(head), ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
