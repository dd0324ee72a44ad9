"""What the encoders keep: the autoencoder of a radiograph, the text encoder of a caption."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.metrics import LabelledFeatures, frechet_distance, psnr, rmse, ssim
from analysis.studies.decisions import Scored
from analysis.studies.probe import linear_probe
from analysis.studies.reconstruction import Mark, as_values, classifier_agreement, region_visibility
from sweep.final.bench import Finalist, Workbench
from sweep.final.marks import phantom_marks
from sweep.final.study import StudyResult
from sweep.scoring.plans import label_rows, two_sided
from trainables.autoencoding import reconstruct
from trainables.datasets.phantom.patients import NO_FINDING
from trainables.datasets.store import PreparedDataset, PreparedSplit
from trainables.feeding import encode_prompts
from trainables.sampling import evaluating

MOST_FINDINGS = 3
"""The most findings in one caption of the probe. Three give dozens of distinct captions, which a probe needs."""
MOST_PSNR_DB = 10 * math.log10(255**2 * 12)
"""58.9 dB, the PSNR that rounding to whole grey levels leaves. A reconstruction that is nearer counts as this near, as
the PSNR of an equal one is infinite."""
FEWEST_FOLDS = 2
MOST_FOLDS = 5


def autoencoder(bench: Workbench, finalist: Finalist) -> StudyResult:
    """What is left of real test films that went through the autoencoder and back."""
    rows = bench.plans["test"].rows
    before = bench.splits["test"].images(rows)
    after = reconstruct(bench.models(finalist), before)
    values = _pixel_values(bench, before, after) | _distance_values(bench, after)
    values |= _agreement_values(bench, before, after)
    marks = _marks(bench)
    values |= _visibility_values(bench, finalist, marks) if marks else {}
    details: dict[str, Any] = {"num_films": len(rows), "num_marks": len(marks)}
    details |= {"boxes": bench.boxes.counts} if bench.boxes else {}
    return StudyResult(values=values, details=details)


def _pixel_values(bench: Workbench, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> dict[str, float]:
    """`vae_rmse`, `vae_rmse/Edema`, ...: means over the films; a film that comes back exactly has the most PSNR counted."""
    table = bench.plans["test"].table(bench.conditions)
    measures = {
        "vae_rmse": rmse(after, before),
        "vae_psnr": np.minimum(psnr(after, before), MOST_PSNR_DB),
        "vae_ssim": ssim(after, before),
    }
    values = {name: float(of_films.mean()) for name, of_films in measures.items()}
    for i, condition in enumerate(bench.conditions):
        values |= {f"{name}/{condition}": float(of_films[table[:, i]].mean()) for name, of_films in measures.items()}
    return values


def _distance_values(bench: Workbench, after: NDArray[np.uint8]) -> dict[str, float]:
    """Fréchet distance between the films before and after, overall and by condition."""
    plan, name = bench.plans["test"], f"vae_fid_{bench.extractor.name}"
    original = LabelledFeatures(bench.real_features("test")[plan.rows], plan.labels)
    restored = LabelledFeatures(bench.features_of(after, "reconstructed"), plan.labels)
    values = {name: frechet_distance(restored.of(None), original.of(None))}
    return values | {f"{name}/{c}": frechet_distance(restored.of(c), original.of(c)) for c in bench.conditions}


def _agreement_values(bench: Workbench, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> dict[str, float]:
    """The classifier's decisions before and after, for the conditions that the films allow to judge."""
    classifier, known = bench.classifier, bench.judged("test")
    table = bench.plans["test"].only(known).table(classifier.conditions)
    names = two_sided([table], classifier.conditions)
    scored = [
        Scored(classifier.predict(films[known]), table, classifier.conditions).only(names) for films in (before, after)
    ]
    return as_values(classifier_agreement(scored[0], scored[1], bench.thresholds))


def _visibility_values(bench: Workbench, finalist: Finalist, marks: Sequence[Mark]) -> dict[str, float]:
    """How visible the marked findings are before and after, `vae_cnr_kept/Edema`, ..."""
    rows = np.unique([mark.film for mark in marks])
    films = bench.splits["test"].images(rows)
    placed = [replace(mark, film=int(np.searchsorted(rows, mark.film))) for mark in marks]
    return as_values(region_visibility(films, reconstruct(bench.models(finalist), films), placed))


def _marks(bench: Workbench) -> list[Mark]:
    """Where findings lie on test films: all boxes that were given, or the phantom's scored findings on planned films."""
    if bench.boxes is not None:
        return list(bench.boxes.marks)
    if bench.config.data.source != "phantom":
        return []
    planned = set(bench.plans["test"].rows.tolist())
    known = phantom_marks(bench.config.data)
    return [mark for mark in known if mark.film in planned and mark.condition in bench.conditions]


def text_probe(bench: Workbench, finalist: Finalist) -> StudyResult:
    """How well the conditions can be read from embeddings of captions, made as the data's are.

    "No Finding" goes with no other and cannot be probed: there is one caption of it.
    """
    captions = probe_captions(bench.dataset)
    prompts, named = list(captions), list(captions.values())
    findings = _probed_findings(bench.dataset, named)
    models = bench.models(finalist)
    with evaluating(models):
        embeddings = encode_prompts(models, prompts).mean(axis=1)
    labels = label_rows(named, findings)
    fewest = int(min(labels.sum(axis=0).min(), (~labels).sum(axis=0).min()))
    folds = max(FEWEST_FOLDS, min(MOST_FOLDS, fewest))
    probe = linear_probe(embeddings, labels, findings, prompts=prompts, num_folds=folds)
    return StudyResult(
        values=probe.as_dict(), details={name: asdict(result) for name, result in probe.conditions.items()}
    )


def probe_captions(data: PreparedDataset) -> dict[str, tuple[str, ...]]:
    """Captions as the models were trained on, each with the findings that it names.

    Returns:
        Of one to three findings by the data's template, with the view that most training films have where the template
        says it; the captions of test films where captions are free text.
    """
    if data.prompts.template is None:
        return _free_captions(data.split("test"))
    findings = [name for name in data.conditions if name != NO_FINDING]
    named = [combination for count in range(1, MOST_FINDINGS + 1) for combination in combinations(findings, count)]
    [(view, _)] = Counter(data.split("train").views).most_common(1)
    return {data.prompts.prompt(combination, view=view): combination for combination in named}


def _free_captions(films: PreparedSplit) -> dict[str, tuple[str, ...]]:
    """The captions of films, without those that films of different findings share.

    Such words do not say which findings are there; whichever label they got, a probe would be judged wrongly by it.
    """
    by_caption: dict[str, tuple[str, ...]] = {}
    shown: dict[str, set[frozenset[str]]] = {}
    for caption, conditions in zip(films.prompts, films.conditions, strict=True):
        by_caption[caption] = tuple(conditions)
        shown.setdefault(caption, set()).add(frozenset(conditions))
    return {caption: conditions for caption, conditions in by_caption.items() if len(shown[caption]) == 1}


def _probed_findings(data: PreparedDataset, named: Sequence[Sequence[str]]) -> list[str]:
    """Conditions that enough captions name and enough do not, one a fold."""
    rows = label_rows(named, data.conditions)
    fewest = dict(zip(data.conditions, np.minimum(rows.sum(axis=0), (~rows).sum(axis=0)), strict=True))
    findings = [name for name in data.conditions if name != NO_FINDING and fewest[name] >= FEWEST_FOLDS]
    if not findings:
        raise ValueError(
            f"`conditions` must have one that {FEWEST_FOLDS} captions name and {FEWEST_FOLDS} do not, but got none among "
            f"{', '.join(data.conditions)}. Prepare data with more conditions."
        )
    return findings
