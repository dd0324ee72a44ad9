"""How the captions of a data set are made: in the words of "Pixels under Pressure", in others, or film by film."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

TEMPLATE = "Chest X-ray of a subject with {findings}"
VIEW_WORDS = {"PA": "posteroanterior view", "AP": "anteroposterior view"}


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptTemplate:
    """How captions follow from what is known of a film; kept with the data, so that all prompts are made alike.

    Args:
        template: a text in which `{findings}` stands for the findings; None where every film has free text of its own.
        view_words: what each view is called behind that text; empty where captions leave the view out.

    Source: Pixels under Pressure, section on data (the default template); the view is ours.
    """

    template: str | None = TEMPLATE
    view_words: Mapping[str, str] = field(default_factory=dict)

    def prompt(self, conditions: Sequence[str], *, view: str | None = None, own: str | None = None) -> str:
        """The caption of a film with these findings.

        Args:
            conditions: findings, for example ("Cardiomegaly", "Pleural Effusion"); their order is kept.
            view: of the film, where known; said only where captions of this data say it.
            own: the free text of the film; taken as it is where captions are free text, and only there.

        Returns:
            For example "Chest X-ray of a subject with cardiomegaly and pleural effusion".

        Raises:
            ValueError: no finding is given, the view has no words, or captions are free text and none is given.
        """
        if self.template is None:
            return _own_text(own)
        if not conditions:
            raise ValueError("`conditions` must name at least one finding, but got none. Use 'No Finding'.")
        findings = _enumeration([condition.lower() for condition in conditions])
        prompt = self.template.replace("{findings}", findings)
        return f"{prompt}, {self._words_of(view)}" if view is not None and self.view_words else prompt

    def _words_of(self, view: str) -> str:
        if view not in self.view_words:
            raise ValueError(
                f"`view` must be one of {', '.join(self.view_words)}, but got {view!r}. Leave an unknown view out."
            )
        return self.view_words[view]


FREE_TEXT = PromptTemplate(template=None)


def paper_template(*, with_view: bool) -> PromptTemplate:
    """The paper's template, with the view behind it if asked for."""
    return PromptTemplate(view_words=VIEW_WORDS if with_view else {})


def _own_text(own: str | None) -> str:
    if own is None:
        raise ValueError("`own` must be a film's caption where captions are free text, but got none. Give a film's.")
    return own


def _enumeration(words: Sequence[str]) -> str:
    if len(words) == 1:
        return words[0]
    return f"{', '.join(words[:-1])} and {words[-1]}"
