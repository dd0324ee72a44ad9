"""Prompts in the paper's words, in others, and free text."""

from __future__ import annotations

import pytest

from trainables.datasets.captions import FREE_TEXT, PromptTemplate, named_template, paper_template


@pytest.mark.parametrize(
    ("conditions", "findings"),
    [
        (["No Finding"], "no finding"),
        (["Cardiomegaly", "Pleural Effusion"], "cardiomegaly and pleural effusion"),
        (["Lung Opacity", "Edema", "Pneumothorax"], "lung opacity, edema and pneumothorax"),
    ],
)
def test_the_default_is_the_papers_template(conditions: list[str], findings: str) -> None:
    assert PromptTemplate().prompt(conditions) == f"Chest X-ray of a subject with {findings}"


def test_the_view_is_named_where_the_captions_of_the_data_name_it() -> None:
    named, unnamed = paper_template(with_view=True), paper_template(with_view=False)
    assert named.prompt(["Edema"], view="AP") == "Chest X-ray of a subject with edema, anteroposterior view"
    assert named.prompt(["Edema"]) == unnamed.prompt(["Edema"], view="AP") == "Chest X-ray of a subject with edema"


def test_another_template_and_other_words() -> None:
    chosen = PromptTemplate(template="Film showing {findings}", view_words={"LL": "from the side"})
    assert chosen.prompt(["Edema", "Mass"], view="LL") == "Film showing edema and mass, from the side"
    assert PromptTemplate(template="{a} film").prompt(["Edema"]) == "{a} film"


def test_free_text_is_the_films_own() -> None:
    assert FREE_TEXT.prompt(["Edema"], view="AP", text="A large heart.") == "A large heart."
    assert PromptTemplate().prompt(["Edema"], text="A large heart.") == "Chest X-ray of a subject with edema"


def test_what_cannot_be_said_is_refused() -> None:
    with pytest.raises(ValueError, match="`conditions` must name at least one finding"):
        PromptTemplate().prompt([])
    with pytest.raises(ValueError, match="`view` must be one of PA, AP, but got 'LL'"):
        paper_template(with_view=True).prompt(["Edema"], view="LL")
    with pytest.raises(ValueError, match="`text` must be a film's caption where captions are free text, but got none"):
        FREE_TEXT.prompt(["Edema"])


def test_templates_have_names_and_say_age_and_sex_when_asked() -> None:
    showing = named_template("showing", with_age=True, with_sex=True, with_view=True)
    said = showing.prompt(["Edema", "Mass"], view="AP", age=54, sex="F")
    assert said == "Chest X-ray showing edema, mass, female, 54 years old, anteroposterior view"
    assert showing.prompt(["Edema"]) == "Chest X-ray showing edema"
    assert named_template("text") == FREE_TEXT


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("shown", {}, r"`--caption` must be one of subject, showing, text, but got 'shown'"),
        ("text", {"with_age": True}, r"`--caption text` must stand alone"),
    ],
)
def test_other_templates_are_refused(name: str, options: dict[str, bool], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        named_template(name, **options)
