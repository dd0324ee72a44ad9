"""Who is examined, what they have and how each film was taken: all random choices, none of the drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainables.datasets.base import CONDITIONS

NO_FINDING = "No Finding"
PRIMARY = {
    "Cardiomegaly": 0.15,
    "Lung Opacity": 0.20,
    "Edema": 0.25,
    "Pneumothorax": 0.27,
    "Pleural Effusion": 0.13,
}
"""Share of the patients with a finding who have it first."""
COMPANIONS = {
    "Cardiomegaly": {"Edema": 0.15, "Pleural Effusion": 0.12},
    "Lung Opacity": {"Pleural Effusion": 0.12, "Cardiomegaly": 0.06},
    "Edema": {"Cardiomegaly": 0.30, "Pleural Effusion": 0.30},
    "Pneumothorax": {"Lung Opacity": 0.08, "Pleural Effusion": 0.10},
    "Pleural Effusion": {"Lung Opacity": 0.15, "Cardiomegaly": 0.15, "Edema": 0.08},
}
"""Chance of a second finding, given the first."""
NO_FINDING_SHARE = 0.21
SAME_FINDINGS_CHANCE = 0.8
IMAGES_A_PATIENT = (1, 2, 3, 4)
IMAGES_A_PATIENT_CHANCES = (0.45, 0.3, 0.15, 0.1)


@dataclass(frozen=True, kw_only=True)
class Patient:
    """What stays the same on all films of a patient."""

    number: int
    """0-based; names the patient, and with `seed` decides all that is drawn."""
    seed: int
    """The seed of the whole phantom."""
    age: int
    """In years, 18 to 94."""
    sex: str
    """"F" or "M"."""
    build: float
    """From 0, slender, to 1, heavy."""
    num_images: int
    """Films of the patient, 1 to 4."""
    findings: tuple[str, ...]
    """What most films of the patient show, in the order of `CONDITIONS`."""
    severities: tuple[float, ...]
    """How marked each of `CONDITIONS` is, if present, in [0, 1]."""
    side: int
    """-1: one-sided findings are on the patient's right, left in the picture; 1: on the other side."""

    @property
    def patient_id(self) -> str:
        """A name for the data set."""
        return f"phantom-{self.number:06d}"

    def rng(self, purpose: str) -> np.random.Generator:
        """Random numbers for one part of the anatomy, the same on each film."""
        return np.random.default_rng([self.seed, self.number, *purpose.encode()])


@dataclass(frozen=True, kw_only=True)
class Exam:
    """One film of a patient.

    Attributes:
        patient: whose film it is.
        index: 0-based, among the patient's films.
        findings: what this film shows, in the order of `CONDITIONS`.
        severities: how marked each of `CONDITIONS` is on this film, if present, in [0, 1].
        view: "PA" or, of a portable film, "AP".
    """

    patient: Patient
    index: int
    findings: tuple[str, ...]
    severities: tuple[float, ...]
    view: str

    @property
    def image_id(self) -> str:
        """A name for the data set."""
        return f"{self.patient.patient_id}-{self.index}"

    def has(self, condition: str) -> bool:
        """Whether the film shows the finding."""
        return condition in self.findings

    def severity(self, condition: str) -> float:
        """How marked a finding is, in [0, 1]."""
        return self.severities[CONDITIONS.index(condition)]

    def rng(self, purpose: str) -> np.random.Generator:
        """Random numbers for one part of this film alone."""
        return np.random.default_rng([self.patient.seed, self.patient.number, self.index + 1, *purpose.encode()])


def draw_patient(seed: int, number: int) -> Patient:
    """The patient of this number, independent of all others."""
    rng = np.random.default_rng([seed, number])
    return Patient(
        number=number,
        seed=seed,
        age=int(np.clip(rng.normal(52, 18), 18, 94)),
        sex=str(rng.choice(["F", "M"])),
        build=float(rng.beta(1.6, 2.0)),
        num_images=int(rng.choice(IMAGES_A_PATIENT, p=IMAGES_A_PATIENT_CHANCES)),
        findings=_draw_findings(rng),
        severities=tuple(rng.uniform(size=len(CONDITIONS)).tolist()),
        side=int(rng.choice([-1, 1])),
    )


def draw_exams(patient: Patient) -> list[Exam]:
    """All films of a patient: mostly with the same findings, now better, now worse."""
    return [_draw_exam(patient, index) for index in range(patient.num_images)]


def _draw_exam(patient: Patient, index: int) -> Exam:
    rng = np.random.default_rng([patient.seed, patient.number, index + 1])
    same = rng.random() < SAME_FINDINGS_CHANCE or index == 0
    findings = patient.findings if same else _draw_findings(rng)
    change = rng.normal(0, 0.12, len(CONDITIONS))
    return Exam(
        patient=patient,
        index=index,
        findings=findings,
        severities=tuple(np.clip(np.array(patient.severities) + change, 0, 1).tolist()),
        view=str(rng.choice(["AP", "PA"], p=_view_chances(findings))),
    )


def _view_chances(findings: Sequence[str]) -> tuple[float, float]:
    portable = 0.25 if NO_FINDING in findings else 0.45
    return portable, 1 - portable


def _draw_findings(rng: np.random.Generator) -> tuple[str, ...]:
    """Findings in the order of `CONDITIONS`."""
    if rng.random() < NO_FINDING_SHARE:
        return (NO_FINDING,)
    first = str(rng.choice(list(PRIMARY), p=list(PRIMARY.values())))
    findings = {first} | {other for other, chance in COMPANIONS[first].items() if rng.random() < chance}
    return tuple(condition for condition in CONDITIONS if condition in findings)
