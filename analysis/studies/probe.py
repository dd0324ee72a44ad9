"""What prompt embeddings know of the conditions: a linear probe, before and after training the text encoder."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from analysis.checks import expect, finite_rows, label_table, unique_names
from analysis.studies.decisions import area_under_curve

MAX_ITERATIONS = 1000


@dataclass(frozen=True, kw_only=True)
class ProbeScores:
    """How well one condition can be read from embeddings that the probe has not seen; means of the folds.

    Attributes:
        auc: area under the curve, in [0, 1]; higher is better, 0.5 is guessing.
        accuracy: share of correct decisions, in [0, 1]; higher is better.
        majority: accuracy of always saying what is more frequent.
    """

    auc: float
    accuracy: float
    majority: float


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Scores by condition.

    Attributes:
        num_prompts: distinct prompts that the scores are of.
        conditions: scores of each condition, by its name.
    """

    num_prompts: int
    conditions: Mapping[str, ProbeScores]

    def as_dict(self) -> dict[str, float]:
        """Finite numbers by name: `probe_auc`, the mean of the conditions, `probe_auc/Edema`, ..., to be reported."""
        values = {f"probe_auc/{name}": scores.auc for name, scores in self.conditions.items()}
        values |= {f"probe_accuracy/{name}": scores.accuracy for name, scores in self.conditions.items()}
        values |= {f"probe_majority/{name}": scores.majority for name, scores in self.conditions.items()}
        mean = float(np.mean([scores.auc for scores in self.conditions.values()]))
        return {"probe_auc": mean, "probe_num_prompts": float(self.num_prompts), **values}


def linear_probe(
    embeddings: ArrayLike,
    labels: ArrayLike,
    conditions: Sequence[str],
    *,
    prompts: Sequence[Hashable] | None = None,
    num_folds: int = 5,
    l2: float = 1.0,
    seed: int = 0,
) -> Probe:
    """Logistic regression of each condition on embeddings, judged on prompts that it was not fitted to.

    Args:
        embeddings: float[n, d], for example the last hidden state averaged over a prompt's tokens.
        labels: bool[n, c].
        conditions: names of the c columns.
        prompts: the text of each row; equal texts are never on both sides of a fold. By default equal embeddings are.
        num_folds: at least 2; each fold is judged once.
        l2: strength of the penalty on the weights of the standardised embeddings, above 0.
        seed: of the folds.

    Raises:
        ValueError: shapes do not match, a value is not finite, or there are too few distinct prompts with or without a
            condition.

    Source:
        Alain and Bengio, Understanding intermediate layers using linear classifier probes, 2016.
    """
    rows, names = finite_rows(embeddings, "embeddings"), unique_names(conditions)
    table = label_table(labels, (len(rows), len(names)))
    expect(num_folds >= 2, "`num_folds` must be at least 2", num_folds, "Use for example 5.")
    expect(l2 > 0, "`l2` must be above 0", l2, "Use for example 1.")
    groups = _groups(rows, prompts)
    folds = StratifiedGroupKFold(n_splits=num_folds, shuffle=True, random_state=seed)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / l2, max_iter=MAX_ITERATIONS))
    by_condition = {}
    for i, name in enumerate(names):
        _check_condition(table[:, i], groups, name, num_folds)
        splits = list(folds.split(rows, table[:, i], groups))
        by_condition[name] = _probe_condition(model, rows, table[:, i], splits)
    return Probe(num_prompts=len(np.unique(groups)), conditions=by_condition)


Split = tuple[NDArray[np.int64], NDArray[np.int64]]


def _probe_condition(
    model: Pipeline, rows: NDArray[np.float64], present: NDArray[np.bool_], splits: Sequence[Split]
) -> ProbeScores:
    """Mean scores of the folds; scores of several fits are not ranked together, for their offsets differ."""
    scores = []
    for fitted, judged in splits:
        logits = model.fit(rows[fitted], present[fitted]).decision_function(rows[judged])
        auc = area_under_curve(logits, present[judged])
        scores.append((auc, float(((logits > 0) == present[judged]).mean())))
    auc, accuracy = np.mean(scores, axis=0)
    share = float(present.mean())
    return ProbeScores(auc=float(auc), accuracy=float(accuracy), majority=max(share, 1 - share))


def _groups(rows: NDArray[np.float64], prompts: Sequence[Hashable] | None) -> NDArray[np.int64]:
    """A number for each row, equal for equal prompts."""
    if prompts is None:
        groups: NDArray[np.int64] = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
        return groups
    expect(len(prompts) == len(rows), f"`prompts` must be {len(rows)}, one a row", len(prompts), "Give one a row.")
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(prompt, len(numbers)) for prompt in prompts])


def _check_condition(present: NDArray[np.bool_], groups: NDArray[np.int64], name: str, num_folds: int) -> None:
    counts = (len(np.unique(groups[present])), len(np.unique(groups[~present])))
    rule = f"`labels` must have at least {num_folds} distinct prompts with and without {name!r}, one a fold"
    came = f"{counts[0]} with it and {counts[1]} without"
    expect(min(counts) >= num_folds, rule, came, "Add prompts, take fewer folds, or leave the condition out.")
