"""What is neither present nor absent: kept through preparation, heeded where classifiers are trained and judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stand_ins import chexpert

from sweep.scoring.plans import known_rows, plan_by_condition
from trainables.datasets.base import SPLITS, SourceOptions
from trainables.datasets.chexpert import CheXpertSource
from trainables.datasets.rules import LabelRules
from trainables.datasets.store import PreparedDataset
from trainables.datasets.writing import write_dataset


def prepared(root: Path, uncertain: str) -> PreparedDataset:
    options = SourceOptions(
        root=root,
        conditions=("Edema", "No Finding"),
        with_age=True,
        rules=LabelRules(uncertain=uncertain),  # type: ignore[arg-type]
    )
    return write_dataset(CheXpertSource.create(options), root / f"prepared-{uncertain}")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chexpert")
    chexpert(folder, 300)
    return folder


def test_films_with_open_labels_are_left_out_where_that_label_matters_and_nowhere_else(root: Path) -> None:
    train = prepared(root, "ignore").split("train")
    uncertain = [row for row, unknown in enumerate(train.unknown) if "Edema" in unknown]
    assert uncertain and not any("Edema" in train.conditions[row] for row in uncertain)
    known = known_rows(train, ("Edema", "No Finding"))
    assert set(known) == set(range(len(train))) - set(uncertain)
    assert known_rows(train, ("No Finding",)) == list(range(len(train)))
    assert known_rows(train, ("Edema",), [*uncertain[:2], known[0]]) == [known[0]]


@pytest.mark.slow
def test_policies_are_kept_with_the_data_and_move_films_between_labels(root: Path) -> None:
    by_policy = {policy: prepared(root, policy) for policy in ("zeros", "ones")}
    counts = {policy: sum(data.split(s).num_with()["Edema"] for s in SPLITS) for policy, data in by_policy.items()}
    assert counts["ones"] > counts["zeros"] > 0
    for policy, data in by_policy.items():
        assert PreparedDataset.open(data.folder).rules == LabelRules(uncertain=policy)  # type: ignore[arg-type]
        assert not any(unknown for split in SPLITS for unknown in data.split(split).unknown)


def test_prompts_of_evaluations_say_the_age_as_captions_do(root: Path) -> None:
    data = (
        prepared(root, "ignore")
        if not (root / "prepared-ignore").is_dir()
        else PreparedDataset.open(root / "prepared-ignore")
    )
    held_out = data.split("validation")
    plan = plan_by_condition(held_out, ("Edema",), 4, seed=0, template=data.prompts)
    ages = np.array(held_out.ages)[plan.rows]
    assert list(plan.prompts) == [f"Chest X-ray of a subject with edema, {age} years old" for age in ages]
