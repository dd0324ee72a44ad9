"""What generated images are worth for training: classifiers trained on real, synthetic or both, tested on real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.checks import expect, finite_values, look_up
from analysis.films.labelled import LabelledImages, require_other_patients
from analysis.studies.classifiers import TrainingSettings, train_classifier
from analysis.studies.decisions import Scored, Thresholds, choose_thresholds, score_decisions

ARMS = ("real", "synthetic", "mixed", "added")
"""With n = the number of images that both sides can give: n real; n synthetic; n / 2 of each; and n of each, which is
no comparison at equal numbers but answers whether synthetic images help beside all real ones."""
EQUAL_ARMS = ARMS[:3]
CLASSIFIER_SCORES = ("auc", "accuracy", "balanced_accuracy", "f1")


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean with its confidence interval, cut to [0, 1] where the score cannot leave it.

    Attributes:
        mean: over the seeds.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    mean: float
    low: float
    high: float


def t_interval(values: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """The confidence interval of a mean from few independent values, by Student's distribution.

    Args:
        values: real[n], n >= 2, one a seed.
        confidence: chance that the interval covers the mean, in (0, 1).

    Raises:
        ValueError: there are fewer than two values, one is not finite, or `confidence` is not in (0, 1).

    Source:
        Student, The probable error of a mean, 1908.
    """
    array = finite_values(values, "values")
    expect(0 < confidence < 1, "`confidence` must be in (0, 1)", confidence, "Use for example 0.95.")
    error = float(array.std(ddof=1)) / len(array) ** 0.5
    half = float(stats.t.ppf((1 + confidence) / 2, len(array) - 1)) * error
    mean = float(array.mean())
    return Interval(mean=mean, low=mean - half, high=mean + half)


@dataclass(frozen=True, kw_only=True)
class UtilityData:
    """The images of a comparison, all with the same conditions.

    Attributes:
        real: training images of real patients.
        synthetic: generated images, labelled by their prompts.
        validation: of other real patients: stops every arm and chooses its thresholds.
        test: of yet other real patients.

    Raises:
        ValueError: conditions differ, or a patient is in two real sets.
    """

    real: LabelledImages
    synthetic: LabelledImages
    validation: LabelledImages
    test: LabelledImages

    def __post_init__(self) -> None:
        """Check what the arms share."""
        for name in ("synthetic", "validation", "test"):
            came = list(getattr(self, name).conditions)
            rule = f"`{name}` must have the conditions of `real`, {list(self.real.conditions)}"
            expect(tuple(came) == self.real.conditions, rule, came, "Label all sets alike.")
        require_other_patients(self.real, self.test, "test")
        require_other_patients(self.validation, self.test, "test")
        require_other_patients(self.real, self.validation, "validation")

    @property
    def num_equal(self) -> int:
        """The largest number of images that the real and the synthetic arm can both have."""
        return min(len(self.real), len(self.synthetic))


@dataclass(frozen=True, kw_only=True)
class Utility:
    """Scores of every arm, condition and seed.

    Attributes:
        num_images: training images of each arm.
        seeds: the training seeds, one a repetition.
        conditions: names of the conditions, in the order of the last axis.
        scores: float64[seeds, conditions] by arm and score.
        confidence: share of the intervals that hold the true mean.
    """

    num_images: Mapping[str, int]
    seeds: tuple[int, ...]
    conditions: tuple[str, ...]
    scores: Mapping[str, Mapping[str, NDArray[np.float64]]]
    confidence: float

    def interval(self, arm: str, score: str, condition: str | None = None) -> Interval:
        """A score of an arm over the seeds: of one condition, or the mean of all conditions.

        Args:
            arm: one of those compared.
            score: one of `CLASSIFIER_SCORES`.
            condition: a name, or None for the mean.

        Returns:
            Mean and interval in [0, 1]; higher is better.

        Raises:
            ValueError: a name is not known.
        """
        interval = t_interval(self._values(arm, score, condition), confidence=self.confidence)
        return replace(interval, low=max(interval.low, 0.0), high=min(interval.high, 1.0))

    def gain(self, arm: str, score: str, *, over: str = "real", condition: str | None = None) -> Interval:
        """How much better an arm is than another, seed by seed, in [-1, 1]; above 0 it is better.

        Args:
            arm: what to train on.
            score: by which arms are compared, such as `auc`.
            over: the arm that it is compared with.
            condition: of which; None: the mean over all.
        """
        differences = self._values(arm, score, condition) - self._values(over, score, condition)
        return t_interval(differences, confidence=self.confidence)

    def as_dict(self) -> dict[str, float]:
        """Finite numbers by name: `utility_auc/real`, `utility_auc/real/Edema`, `utility_auc_low/real`, ..."""
        values = {f"utility_num_images/{arm}": float(count) for arm, count in self.num_images.items()}
        for arm in self.scores:
            for score in CLASSIFIER_SCORES:
                for condition in (None, *self.conditions):
                    values |= self._named(arm, score, condition)
        return values

    def _named(self, arm: str, score: str, condition: str | None) -> dict[str, float]:
        suffix = f"/{arm}" if condition is None else f"/{arm}/{condition}"
        interval = self.interval(arm, score, condition)
        ends = {"": interval.mean, "_low": interval.low, "_high": interval.high}
        return {f"utility_{score}{end}{suffix}": value for end, value in ends.items()}

    def _values(self, arm: str, score: str, condition: str | None) -> NDArray[np.float64]:
        """float64[seeds]."""
        table = look_up(look_up(self.scores, arm, "arm"), score, "score")
        if condition is None:
            means: NDArray[np.float64] = table.mean(axis=1)
            return means
        columns = dict(zip(self.conditions, table.T, strict=True))
        return look_up(columns, condition, "condition")


def compare_arms(
    data: UtilityData,
    settings: TrainingSettings | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    arms: Sequence[str] = EQUAL_ARMS,
    confidence: float = 0.95,
    on_progress: Callable[[str, int], None] | None = None,
    on_tested: Callable[[str, Scored], None] | None = None,
) -> Utility:
    """Train a classifier for each arm and seed, and test all on the same real images.

    The arms `real`, `synthetic` and `mixed` have equally many images: as many as the smaller side gives. A seed draws
    the images, the weights and the batches. Stopping and thresholds use the real validation images in every arm.

    Args:
        data: the images.
        settings: how to train; its seed is replaced.
        seeds: at least two.
        arms: some of `ARMS`.
        confidence: of the intervals.
        on_progress: called with arm and seed before each training.
        on_tested: called with the arm and what its classifier thinks of the test images, after each training.

    Raises:
        ValueError: fewer than two seeds, an unknown arm, or a drawn arm lacks a condition.
    """
    expect(len(set(seeds)) == len(seeds) >= 2, "`seeds` must be at least 2, each once", list(seeds), "Add seeds.")
    for arm in arms:
        look_up(dict.fromkeys(ARMS, True), arm, "arms")
    calls = (on_progress or (lambda arm, seed: None), on_tested or (lambda arm, scored: None))
    tables = {arm: _train_arm(arm, data, settings or TrainingSettings(), (seeds, *calls)) for arm in arms}
    return Utility(
        num_images={arm: len(draw_arm(arm, data, seeds[0])) for arm in arms},
        seeds=tuple(seeds),
        conditions=data.real.conditions,
        scores=tables,
        confidence=confidence,
    )


def draw_arm(arm: str, data: UtilityData, seed: int) -> LabelledImages:
    """The training images of an arm, drawn without repetition: other ones for each seed where there are more.

    Args:
        arm: `real`, `synthetic`, `mixed` or `added`.
        data: all images.
        seed: draws them.
    """
    num_images, rng = data.num_equal, np.random.default_rng(seed)
    real, synthetic = rng.permutation(len(data.real)), rng.permutation(len(data.synthetic))
    shares = {
        "real": (num_images, 0),
        "synthetic": (0, num_images),
        "mixed": (num_images // 2, num_images - num_images // 2),
        "added": (num_images, num_images),
    }
    num_real, num_synthetic = look_up(shares, arm, "arm")
    chosen = ((data.real, real[:num_real]), (data.synthetic, synthetic[:num_synthetic]))
    return reduce(LabelledImages.joined, [images.take(rows) for images, rows in chosen if len(rows)])


def _train_arm(
    arm: str,
    data: UtilityData,
    settings: TrainingSettings,
    repetitions: tuple[Sequence[int], Callable[[str, int], None], Callable[[str, Scored], None]],
) -> dict[str, NDArray[np.float64]]:
    """Each score as float64[seeds, conditions]."""
    seeds, on_progress, on_tested = repetitions
    rows = []
    for seed in seeds:
        on_progress(arm, seed)
        tested, thresholds = _train_and_test(draw_arm(arm, data, seed), data, replace(settings, seed=seed))
        on_tested(arm, tested)
        rows.append([asdict(scores) for scores in score_decisions(tested, thresholds).values()])
    return {score: np.array([[cell[score] for cell in row] for row in rows]) for score in CLASSIFIER_SCORES}


def _train_and_test(train: LabelledImages, data: UtilityData, settings: TrainingSettings) -> tuple[Scored, Thresholds]:
    """What one trained classifier thinks of the test images, and its thresholds."""
    classifier = train_classifier(train, data.validation, settings)
    return classifier.score(data.test), choose_thresholds(classifier.score(data.validation))
