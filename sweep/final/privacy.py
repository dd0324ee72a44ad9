"""What a finalist gives away of its training films: copies, and losses that tell them from others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.files import whole_file
from analysis.gallery import Gallery
from analysis.membership import loss_gap_membership
from analysis.memorisation import MemorisationReport, attainable_confidence, find_copies, pairs_sheet
from sweep.final.bench import MIRRORED, Finalist, Workbench
from sweep.final.study import StudyResult
from trainables.membership_losses import membership_losses

MEMBERS = ("train", "test")


def memorisation(bench: Workbench, finalist: Finalist) -> StudyResult:
    """Copies of training films among the generated ones, drawn as `copies.png`."""
    films, _ = bench.all_generated(finalist)
    features = [bench.generated_features(finalist, split) for split in MIRRORED]
    held_out = reduce(_joined, [bench.gallery(name) for name in ("validation", "test")])
    share = bench.settings.max_false_alarms
    confidence = attainable_confidence(len(set(held_out.groups())), share)
    train = bench.gallery("train")
    report = find_copies(
        Gallery(np.concatenate(features), films), train, held_out, max_false_alarms=share, confidence=confidence
    )
    _save_copies(report, films, train, finalist)
    details = {
        "deciding": list(report.deciding), "num_patients": len(set(held_out.groups())),
        "copies": [_pair(bench, asdict(pair)) for pair in report.copies],
    }  # fmt: skip
    return StudyResult(values={**report.as_dict(), "memorisation_confidence": confidence}, details=details)


def _pair(bench: Workbench, pair: Mapping[str, Any]) -> dict[str, Any]:
    return {**pair, "train_image_id": bench.splits["train"].image_ids[pair["train"]]}


def _save_copies(report: MemorisationReport, films: NDArray[np.uint8], train: Gallery, finalist: Finalist) -> None:
    path = finalist.folder / "copies.png"
    path.unlink(missing_ok=True)
    if report.copies and train.images is not None:
        with whole_file(path) as file:
            pairs_sheet(films, train.images, report.copies).save(file, format="PNG")


def membership(bench: Workbench, finalist: Finalist) -> StudyResult:
    """Whether the denoising loss tells training films from test films, equally many; the base has seen neither."""
    models = bench.models(finalist)
    count = min(bench.settings.membership_films, *(len(bench.splits[name]) for name in MEMBERS))
    losses, patients = {}, {}
    for name in MEMBERS:
        data = bench.splits[name]
        rows = np.sort(np.random.default_rng(bench.config.seed).permutation(len(data))[:count])
        moments = bench.moments(finalist, name)[rows]
        losses[name] = membership_losses(models, moments, [data.prompts[row] for row in rows])
        patients[name] = [data.patient_ids[row] for row in rows]
    found = loss_gap_membership(
        losses["train"], losses["test"], member_patients=patients["train"], other_patients=patients["test"]
    )
    means = {f"membership_loss_{name}": float(values.mean()) for name, values in losses.items()}
    return StudyResult(values={**found.as_dict(), **means})


def _joined(first: Gallery, second: Gallery) -> Gallery:
    """Both galleries of real films as one."""
    images = [gallery.images for gallery in (first, second) if gallery.images is not None]
    patients = (*(first.patients or ()), *(second.patients or ()))
    return Gallery(np.concatenate([first.features, second.features]), np.concatenate(images), patients)
