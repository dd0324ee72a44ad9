"""How good generated films are: fidelity, alignment with their captions, utility for training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from analysis.files import whole_file
from analysis.films.labelled import LabelledImages, resize
from analysis.metrics import LabelledFeatures, ms_ssim_diversity
from analysis.metrics.ms_ssim import Diversity
from analysis.reader_study.films import FILMS
from analysis.studies.alignment import image_prompt_alignment
from analysis.studies.decisions import Scored, decide
from analysis.studies.fidelity import fidelity_figures
from analysis.studies.subgroups import Patients, auc_by_group, kid_by_group, share_by_group
from analysis.studies.utility import UtilityData, compare_arms
from sweep.final.bench import Finalist, Workbench, only
from sweep.final.study import StudyResult
from sweep.scoring.plans import label_rows
from sweep.scoring.scorer import SHEET_COLUMNS
from trainables.sheets import labelled_sheet


def fidelity(bench: Workbench, finalist: Finalist) -> StudyResult:
    """Distance to the real test films and diversity, overall and by condition; leaves `samples.png`."""
    plan, films = bench.plans["test"], bench.generated(finalist, "test")
    save_samples(bench, finalist)
    real = bench.real_features("test")[plan.rows]
    generated = LabelledFeatures(bench.generated_features(finalist, "test"), plan.labels)
    patients = [bench.splits["test"].patient_ids[row] for row in plan.rows]
    figures = fidelity_figures(
        generated,
        LabelledFeatures(real, plan.labels),
        patients=patients,
        extractor=bench.extractor.name,
        weights_hash=bench.extractor.weights_hash,
        conditions=bench.conditions,
        num_resamples=bench.settings.num_resamples,
    )
    rows = {name: np.flatnonzero(plan.table([name])[:, 0]) for name in bench.conditions}
    similar = {"ms_ssim": films, "ms_ssim_real": bench.splits["test"].images(plan.rows)}
    diversity = {key: diversity_by_condition(images, rows) for key, images in similar.items()}
    values = {name: value for figure in figures for name, value in figure.named().items()} | {
        "num_films": float(len(plan))
    }
    for key, by_condition in diversity.items():
        values |= {f"{key}/{name}": result.value for name, result in by_condition.items()}
        values[key] = float(np.mean([result.value for result in by_condition.values()]))
    by_group = kid_by_group(
        generated.features, real, patients_of(bench, "test").take(plan.rows), num_resamples=bench.settings.num_resamples
    )
    details = {name: asdict(result) for name, result in diversity["ms_ssim"].items()}
    return StudyResult(
        values=values | by_group.named("kid"),
        details={
            "figures": [figure.as_record() for figure in figures],
            "ms_ssim": details,
            "subgroups": by_group.details(),
        },
    )


def patients_of(bench: Workbench, split: str) -> Patients:
    """Who the real films of a split are of."""
    data = bench.splits[split]
    return Patients(np.array(data.patient_ids), data.sexes, data.ages, data.views)


def diversity_by_condition(
    films: NDArray[np.uint8], rows: Mapping[str, NDArray[np.int64]], num_pairs: int = 1000
) -> dict[str, Diversity]:
    """Mean MS-SSIM over pairs of films of one condition; the same pairs for any films of the same rows.

    Over pairs of different conditions it would show how conditions differ, and not how films for one do.

    Args:
        films: uint8[n, H, W].
        rows: of each condition, int64[k], k >= 2.
        num_pairs: of all conditions together.

    Raises:
        ValueError: fewer than two films have a condition.
    """
    each = -(-num_pairs // len(rows))
    return {name: ms_ssim_diversity(films[chosen], num_pairs=each) for name, chosen in rows.items()}


def save_samples(bench: Workbench, finalist: Finalist) -> None:
    """A row of films for each condition, `samples.png`, and the real films of the same captions, `real.png`.

    All films of both kinds are left for a reader study, in `films.npz`.
    """
    plan = bench.plans["test"]
    rows = {name: np.flatnonzero(plan.table([name])[:, 0])[:SHEET_COLUMNS] for name in bench.conditions}
    real = bench.splits["test"].images(plan.rows)
    generated = bench.generated(finalist, "test")
    for name, films in (("samples.png", generated), ("real.png", real)):
        with whole_file(finalist.folder / name) as file:
            labelled_sheet({label: films[chosen] for label, chosen in rows.items()}).save(file, format="PNG")
    with whole_file(finalist.folder / FILMS) as file:
        np.savez_compressed(
            file,
            generated=generated,
            real=real,
            labels=np.array([json.dumps(conditions) for conditions in plan.labels]),
        )


def alignment(bench: Workbench, finalist: Finalist) -> StudyResult:
    """Whether films show what their captions, of one or several conditions, ask for."""
    classifier = bench.classifier
    films, labels = bench.generated(finalist, "test"), bench.plans["test"].labels
    names = tuple(name for name in classifier.conditions if any(name in label for label in labels))
    table = label_rows(labels, names)
    asked = table.any(axis=1)
    scored = Scored(
        classifier.predict(films[asked]), label_rows(labels, classifier.conditions)[asked], classifier.conditions
    )
    real = classifier.score(only(bench.real("test"), classifier.conditions))
    result = image_prompt_alignment(scored.only(names), real.only(names), bench.thresholds)
    details = {
        "classifier": {"architecture": classifier.architecture, "weights_hash": classifier.weights_hash},
        "thresholds": dict(bench.thresholds),
        "left_out": sorted(set(bench.conditions) - set(names)),
        "real_films": bench.samples(),
    }
    recall = {f"alignment_recall_real/{name}": condition.real_recall for name, condition in result.conditions.items()}
    prompted = scored.only(names)
    aligned = np.all(decide(prompted, bench.thresholds) | ~prompted.labels, axis=1)
    by_group = share_by_group(aligned, patients_of(bench, "test").take(bench.plans["test"].rows[asked]))
    return StudyResult(
        values={**result.as_dict(), **recall, **by_group.named("alignment")},
        details={**details, "subgroups": by_group.details()},
    )


def utility(bench: Workbench, finalist: Finalist) -> StudyResult:
    """Classifiers trained on real films, on synthetic films for the very same captions, and on half of each."""
    settings, known = bench.settings, bench.judged("train")
    plan = bench.plans["train"].only(known)
    names = bench.learnable(plan.table(bench.conditions))
    training = settings.classifier(bench.dataset.resolution_px, settings.utility_epochs, str(bench.device))
    data = UtilityData(
        real=only(bench.real("train", plan.rows), names),
        synthetic=LabelledImages(
            resize(bench.generated(finalist, "train")[known], bench.classifier_px).numpy(), plan.table(names), names
        ),
        validation=only(bench.real("validation"), names),
        test=only(bench.real("test"), names),
    )
    seeds = range(settings.utility_seeds)
    tested: dict[str, list[Scored]] = {}
    comparison = compare_arms(
        data,
        training,
        seeds=seeds,
        on_progress=lambda arm, seed: bench.on_progress(0),
        on_tested=lambda arm, scored: tested.setdefault(arm, []).append(scored),
    )
    by_group = auc_by_group(tested["synthetic"], patients_of(bench, "test").take(bench.sampled("test")))
    details = {"training": {**asdict(training), "initial_weights": str(training.initial_weights)}, "seeds": list(seeds)}
    return StudyResult(
        values=comparison.as_dict() | by_group.named("utility_auc"),
        details={
            **details,
            "conditions": list(names),
            "real_films": bench.samples(),
            "subgroups": by_group.details(),
        },
    )
