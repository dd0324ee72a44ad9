"""What a finalist gives away of its training films: copies, and losses that tell them from others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.files import whole_file
from analysis.films.gallery import Gallery, compared
from analysis.films.pairs import pairs_sheet
from analysis.studies.membership import loss_gap_membership
from analysis.studies.memorisation import CopyPair, find_copies
from sweep.final.bench import HELD_OUT, MIRRORED, Finalist, Workbench
from sweep.final.study import StudyResult
from trainables.membership_losses import membership_losses

MEMBERS = ("train", "test")
MOST_SHOWN = 16
"""The most pairs that `copies.png` shows."""


def memorisation(bench: Workbench, finalist: Finalist) -> StudyResult:
    """Copies of training films among the generated ones, drawn as `copies.png`."""
    features = np.concatenate([bench.generated_features(finalist, split) for split in MIRRORED])
    films = np.concatenate([compared(bench.generated(finalist, split)) for split in MIRRORED])
    report = find_copies(Gallery(features.astype(np.float64), films), bench.calibration)
    _save_copies(bench, finalist, report.copies[:MOST_SHOWN])
    details = {
        "deciding": list(report.deciding),
        "num_patients": len(set(bench.calibration.limit.far.groups())),
        "held_out": {"films": report.num_held_out, "of": sum(len(bench.splits[name]) for name in HELD_OUT)},
        "copies": [_pair(bench, asdict(pair)) for pair in report.copies],
    }
    return StudyResult(values=report.as_dict(), details=details)


def _pair(bench: Workbench, pair: Mapping[str, Any]) -> dict[str, Any]:
    return {**pair, "train_image_id": bench.splits["train"].image_ids[pair["train"]]}


def _save_copies(bench: Workbench, finalist: Finalist, copies: Sequence[CopyPair]) -> None:
    path = finalist.folder / "copies.png"
    path.unlink(missing_ok=True)
    if copies:
        generated = _generated_rows(bench, finalist, [pair.generated for pair in copies])
        train = bench.splits["train"].images([pair.train for pair in copies])
        with whole_file(path) as file:
            pairs_sheet(generated, train, copies).save(file, format="PNG")


def _generated_rows(bench: Workbench, finalist: Finalist, rows: Sequence[int]) -> NDArray[np.uint8]:
    """Some of the films for the captions of all mirrored splits, in full size; one split is in memory at a time."""
    start = 0
    by_row: dict[int, NDArray[np.uint8]] = {}
    for split in MIRRORED:
        films = bench.generated(finalist, split)
        by_row |= {row: films[row - start].copy() for row in rows if start <= row < start + len(films)}
        start += len(films)
    return np.stack([by_row[row] for row in rows])


def membership(bench: Workbench, finalist: Finalist) -> StudyResult:
    """Whether the denoising loss tells training films from test films, equally many; the base has seen neither."""
    models = bench.models(finalist)
    count = min(bench.settings.membership_films, *(len(bench.splits[name]) for name in MEMBERS))
    losses, patients = {}, {}
    for name in MEMBERS:
        data = bench.splits[name]
        rows = np.sort(np.random.default_rng(bench.config.seed).permutation(len(data))[:count])
        moments = bench.moments(finalist, name, rows)
        losses[name] = membership_losses(models, moments, [data.prompts[row] for row in rows])
        patients[name] = [data.patient_ids[row] for row in rows]
    result = loss_gap_membership(
        losses["train"], losses["test"], member_patients=patients["train"], other_patients=patients["test"]
    )
    means = {f"membership_loss_{name}": float(values.mean()) for name, values in losses.items()}
    return StudyResult(values={**result.as_dict(), **means})
