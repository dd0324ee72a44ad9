"""The studies of a final evaluation by name. A new one: a function of bench and finalist, and a line here."""

from __future__ import annotations

from collections.abc import Callable

from sweep.final.bench import Finalist, Workbench
from sweep.final.benchmark import benchmark, is_its_preset
from sweep.final.encoders import autoencoder, text_probe
from sweep.final.privacy import membership, memorisation
from sweep.final.quality import alignment, fidelity, utility
from sweep.final.study import Study
from sweep.scoring.identity import file_hash


def _adapted(finalist: Finalist) -> bool:
    return finalist.adapter is not None


def _everyone(finalist: Finalist) -> bool:
    return True


def _trains(part: str) -> Callable[[Finalist], bool]:
    """Whether a study of a part applies: to finalists that changed it, and to the base for comparison."""
    return lambda finalist: finalist.adapter is None or part in finalist.trains


def _boxes(bench: Workbench) -> dict[str, str]:
    return {} if bench.boxes is None else {"boxes": bench.boxes.digest}


def _verifier(bench: Workbench) -> dict[str, str]:
    digest = file_hash(bench.settings.verifier_weights)
    return {} if digest is None else {"verifier_weights": digest}


STUDIES = {
    "fidelity": Study(
        run=fidelity,
        title="fidelity and diversity",
        of=_adapted,
        per_seed=True,
        splits="films generated for captions of test films, against those test films",
    ),
    "alignment": Study(
        run=alignment,
        title="alignment with captions",
        of=_adapted,
        per_seed=True,
        splits="films generated for captions of test films, beside test films; the classifier knows training films, its "
        "thresholds validation films",
    ),
    "utility": Study(
        run=utility,
        title="utility for training",
        of=_adapted,
        per_seed=True,
        splits="classifiers learn training films and films generated for their captions, are stopped by validation films "
        "and tested on test films",
    ),
    "benchmark": Study(
        run=benchmark,
        title="CheXGenBench's figures",
        of=_adapted,
        when=is_its_preset,
        inputs=_verifier,
        splits="films generated for each caption of test films once, against the first of these; classifiers learn training "
        "films and films generated for their captions, and are tested on all test films",
    ),
    "memorisation": Study(
        run=memorisation,
        title="copies of training films",
        of=_adapted,
        splits="films generated for captions of test and training films, between training films and held-out films of "
        "validation and test patients",
    ),
    "membership": Study(
        run=membership,
        title="membership by loss",
        of=_everyone,
        splits="training films against test films",
    ),
    "autoencoder": Study(
        run=autoencoder,
        title="what the autoencoder keeps",
        of=_trains("vae"),
        inputs=_boxes,
        splits="test films; the classifier is that of the alignment",
    ),
    "text_probe": Study(
        run=text_probe,
        title="what the text encoder knows",
        of=_trains("text_encoder"),
        splits="captions of one to three findings, or of test films where captions are free text",
    ),
}
