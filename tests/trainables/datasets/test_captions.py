"""Prompts in the paper's words."""

from __future__ import annotations

import pytest

from trainables.datasets.captions import caption


@pytest.mark.parametrize(
    ("conditions", "findings"),
    [
        (["No Finding"], "no finding"),
        (["Cardiomegaly", "Pleural Effusion"], "cardiomegaly and pleural effusion"),
        (["Lung Opacity", "Edema", "Pneumothorax"], "lung opacity, edema and pneumothorax"),
    ],
)
def test_caption_is_the_papers_template(conditions: list[str], findings: str) -> None:
    assert caption(conditions) == f"Chest X-ray of a subject with {findings}"


def test_caption_names_the_view_when_asked() -> None:
    assert caption(["Edema"], view="AP") == "Chest X-ray of a subject with edema, anteroposterior view"


def test_caption_refuses_what_it_cannot_say() -> None:
    with pytest.raises(ValueError, match="`conditions` must name at least one finding"):
        caption([])
    with pytest.raises(ValueError, match="`view` must be one of PA, AP, but got 'LL'"):
        caption(["Edema"], view="LL")
