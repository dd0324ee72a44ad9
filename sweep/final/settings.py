"""What a final evaluation does, apart from which trials."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from analysis.checks import look_up
from analysis.run_folder import RunFolder
from analysis.studies.classifiers import TrainingSettings
from analysis.studies.networks import ARCHITECTURES
from sweep.scoring.identity import file_hash

SMALL_PX = 64
BENCHMARK = "chexgenbench"
"""The preset whose final evaluation has the benchmark's figures."""


@dataclass(frozen=True, kw_only=True)
class FinalSettings:
    """How finalists are evaluated.

    Attributes:
        images_per_condition: the most films for one condition, of the test captions and of the training captions.
        num_resamples: random halves behind each interval of fidelity.
        architecture: of the classifiers; None chooses by the films' size.
        initial_weights: safetensors that classifiers start from.
        verifier_weights: of the network by which CheXGenBench tells patients apart; None: that part of it is left out.
        alignment_epochs: the most for the classifier of alignment.
        utility_epochs: the most for each classifier of utility.
        utility_seeds: classifiers of each arm.
        max_false_alarms: share of innocent films that may be taken for copies.
        membership_films: the most training films, and test films, whose losses are compared.
        classifier_films: the most real films of each split that classifiers learn and are judged by. 20,000 are 1 GB where
            a classifier takes films of 224 px, and show a condition of 1 % on 200.
        held_out_films: the most films of held-out patients by which it is told what counts as a copy. 2,000 are of more
            patients than the 59 that 5 % of false alarms take, and each is compared with all training films.
    """

    images_per_condition: int
    num_resamples: int = 200
    architecture: str | None = None
    initial_weights: Path | None = None
    verifier_weights: Path | None = None
    alignment_epochs: int = 30
    utility_epochs: int = 15
    utility_seeds: int = 3
    max_false_alarms: float = 0.05
    membership_films: int = 500
    classifier_films: int = 20_000
    held_out_films: int = 2_000

    def classifier(self, resolution_px: int, max_epochs: int, device: str) -> TrainingSettings:
        """How a classifier of these films is trained.

        Args:
            resolution_px: side of the films, which chooses the architecture where none is set.
            max_epochs: passes over the films, at most.
            device: where to compute.
        """
        chosen = self.architecture or ("small" if resolution_px <= SMALL_PX else "efficientnet_b0")
        return TrainingSettings(
            architecture=chosen,
            max_epochs=max_epochs,
            initial_weights=self.initial_weights,
            device=device,
            peak_lr=3e-3 if chosen == "small" else 1e-3,
        )

    def as_record(self) -> dict[str, Any]:
        """The fields by name, as JSON has them, of a file its hash; without the verifier's, which one study alone depends on."""
        record = asdict(self) | {"initial_weights": file_hash(self.initial_weights)}
        del record["verifier_weights"]
        return record


def final_settings(
    run: RunFolder,
    images_per_condition: int | None,
    architecture: str | None,
    *,
    initial_weights: Path | None,
    verifier_weights: Path | None,
) -> FinalSettings:
    """The settings for a run: as many films for one condition as the sweep's, if not said otherwise.

    Args:
        run: the run that is evaluated.
        images_per_condition: the most films drawn for one condition; None: the sweep's.
        architecture: the classifier's, a key of `ARCHITECTURES`; None: by the size of the films.
        initial_weights: safetensors that the classifier starts from; None: random ones.
        verifier_weights: of the network by which CheXGenBench tells patients apart, if there are.

    Raises:
        ValueError: the architecture is unknown, or the run is of another preset than the benchmark's.
    """
    if verifier_weights is not None and run.config["preset"] != BENCHMARK:
        raise ValueError(
            f"`--verifier-weights` must be for a run of the preset {BENCHMARK}, but got one of {run.config['preset']}. "
            "Leave it out."
        )
    if architecture is not None:
        look_up(ARCHITECTURES, architecture, "classifier")
    count = images_per_condition or int(run.config["evaluation"]["images_per_condition"])
    return FinalSettings(
        images_per_condition=count,
        architecture=architecture,
        initial_weights=initial_weights,
        verifier_weights=verifier_weights,
    )
