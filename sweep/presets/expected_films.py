"""How many films the published studies are expected to train on and to be scored by, for plans made before they are prepared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpectedFilms:
    """The films of a study.

    Attributes:
        num_train: of the training split.
        num_held_out: validation films that show each condition.
        source: where the counts are from, as the end of a sentence.
    """

    num_train: int
    num_held_out: Mapping[str, int]
    source: str


PIXELS: Final = ExpectedFilms(
    num_train=20_000,
    num_held_out={
        "Cardiomegaly": 1195,
        "Lung Opacity": 4075,
        "Edema": 2584,
        "No Finding": 722,
        "Pneumothorax": 827,
        "Pleural Effusion": 3505,
    },
    source="the sizes that are asked for, and the validation films of each condition in the paper",
)
MIMIC_FINDINGS: Final = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture"),
    *("Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia"),
    *("Pneumothorax", "Support Devices"),
)
MIMIC: Final = ExpectedFilms(
    num_train=246_000,
    num_held_out=dict.fromkeys(MIMIC_FINDINGS, 285),
    source="at most: two thirds of MIMIC-CXR-JPG's 368,960 training and 2,991 validation films, as about so many are frontal, "
    "with two of its 14 findings each",
)
EXPECTED: Final[Mapping[str, ExpectedFilms]] = {
    "pixels_under_pressure": PIXELS,
    "pixels_under_pressure_corrected": PIXELS,
    "selora_iu": ExpectedFilms(
        num_train=2217,
        num_held_out={f"finding {number}": 38 for number in range(1, 15)},
        source="the Indiana reports: 80 % of the frontal films with findings, and 536 of 14 findings among 443 validation films",
    ),
    "selora_montgomery": ExpectedFilms(
        num_train=97,
        num_held_out={"No Finding": 12, "Tuberculosis": 9},
        source="70 and 15 % of 138 films, of which 58 show tuberculosis",
    ),
    "roentgen": MIMIC,
    "chambon": ExpectedFilms(
        num_train=1000,
        num_held_out={"No Finding": 2500, "Pleural Effusion": 11_000},
        source="the training films that are asked for, and 15 % of CheXpert's frontal films of each condition",
    ),
    "chexgenbench": MIMIC,
}
"""By preset."""
