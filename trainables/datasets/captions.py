"""How the captions of a data set are made: in the words of "Pixels under Pressure", in others, or film by film."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

TEMPLATE = "Chest X-ray of a subject with {findings}"
NUM_TOKENS = 77
"""What CLIP's text encoder takes, the marks at both ends included."""
VIEW_WORDS = {"PA": "posteroanterior view", "AP": "anteroposterior view"}
SEX_WORDS = {"F": "female", "M": "male"}


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptTemplate:
    """How captions follow from what is known of a film; kept with the data, so that all prompts are made alike.

    Attributes:
        template: a text in which `{findings}` stands for the findings; None where every film has free text of its own.
        last_word: stands before the last of several findings; empty where commas alone separate them.
        view_words: what each view is called behind that text; empty where captions leave the view out.
        sex_words: likewise of the sexes.
        with_age: name the age, where it is known.

    Source: Pixels under Pressure, section on data (the default template); view, sex and age are ours.
    """

    template: str | None = TEMPLATE
    last_word: str = "and"
    view_words: Mapping[str, str] = field(default_factory=dict)
    sex_words: Mapping[str, str] = field(default_factory=dict)
    with_age: bool = False

    def prompt(
        self,
        conditions: Sequence[str],
        *,
        view: str | None = None,
        age: int | None = None,
        sex: str | None = None,
        text: str | None = None,
    ) -> str:
        """The caption of a film with these findings.

        Args:
            conditions: findings, for example ("Cardiomegaly", "Pleural Effusion"); their order is kept.
            view: of the film, where known; said only where captions of this data say it.
            age: in years, likewise.
            sex: likewise.
            text: the free text of the film; taken as it is where captions are free text, and only there.

        Returns:
            For example "Chest X-ray of a subject with cardiomegaly and pleural effusion".

        Raises:
            ValueError: no finding is given, the view has no words, or captions are free text and none is given.
        """
        if self.template is None:
            return _own_text(text)
        if not conditions:
            raise ValueError("`conditions` must name at least one finding, but got none. Use 'No Finding'.")
        findings = _enumeration([condition.lower() for condition in conditions], self.last_word)
        aged = [f"{age} years old"] if self.with_age and age is not None else []
        said = [*_worded("sex", sex, self.sex_words), *aged, *_worded("view", view, self.view_words)]
        return ", ".join([self.template.replace("{findings}", findings), *said])


FREE_TEXT = PromptTemplate(template=None)
TEMPLATES: Final[Mapping[str, PromptTemplate]] = {
    "subject": PromptTemplate(),
    "showing": PromptTemplate(template="Chest X-ray showing {findings}", last_word=""),
    "text": FREE_TEXT,
}
"""Templates by name: that of the paper, that of its code, and each film's own text."""


def named_template(
    name: str, *, with_view: bool = False, with_age: bool = False, with_sex: bool = False
) -> PromptTemplate:
    """The template of that name, with what it is to say besides.

    Args:
        name: a key of `TEMPLATES`.
        with_view: whether captions say the view.
        with_age: whether they say the age.
        with_sex: whether they say the sex.

    Raises:
        ValueError: there is no such template, or free text is to say something besides.
    """
    if name not in TEMPLATES:
        raise ValueError(f"`--caption` must be one of {', '.join(TEMPLATES)}, but got {name!r}. Choose one.")
    if name == "text" and (with_view or with_age or with_sex):
        raise ValueError(
            "`--caption text` must stand alone, since a film's own text is not changed, but got view, age or sex "
            "besides. Leave them out."
        )
    views, sexes = VIEW_WORDS if with_view else {}, SEX_WORDS if with_sex else {}
    return replace(TEMPLATES[name], view_words=views, sex_words=sexes, with_age=with_age)


def paper_template(*, with_view: bool) -> PromptTemplate:
    """The paper's template, with the view behind it if asked for."""
    return named_template("subject", with_view=with_view)


def _worded(what: str, value: str | None, words: Mapping[str, str]) -> list[str]:
    if value is None or not words:
        return []
    if value not in words:
        raise ValueError(f"`{what}` must be one of {', '.join(words)}, but got {value!r}. Leave an unknown {what} out.")
    return [words[value]]


def _own_text(text: str | None) -> str:
    if text is None:
        raise ValueError("`text` must be a film's caption where captions are free text, but got none. Give a film's.")
    return text


def _enumeration(words: Sequence[str], last_word: str) -> str:
    if len(words) == 1 or not last_word:
        return ", ".join(words)
    return f"{', '.join(words[:-1])} {last_word} {words[-1]}"


def may_be_cut(captions: Iterable[str], num_tokens: int = NUM_TOKENS) -> bool:
    """Whether any caption could be longer than an encoder takes, seen without its tokenizer."""
    # A token stands for at least one byte that is no space, and both ends are marked.
    return any(len("".join(caption.split()).encode()) > num_tokens - 2 for caption in captions)


def cut_captions(captions: Sequence[str], tokens: Callable[[str], Sequence[int]], num_tokens: int) -> str:
    """What is said of captions whose end a text encoder never sees.

    Args:
        captions: of all films.
        tokens: of a caption, with the marks at its ends.
        num_tokens: that the encoder takes.

    Returns:
        A sentence with their number, how many texts are left of them, and an example; empty where none is too long.
    """
    ids = {text: tuple(tokens(text)) for text in dict.fromkeys(captions) if may_be_cut([text], num_tokens)}
    cut = {text: its[: num_tokens - 1] for text, its in ids.items() if len(its) > num_tokens}
    if not cut:
        return ""
    left = len(set(cut.values()))
    return (
        f"{sum(caption in cut for caption in captions):,} captions of {len(captions):,} are longer than the {num_tokens} "
        f"tokens that the text encoder takes. Their ends are cut off: of {len(cut):,} different ones {left:,} "
        f"text{'s are' if left > 1 else ' is'} left, for example of {next(iter(cut))!r}."
    )
