"""Reports of radiologists as captions: a section of them, without what de-identification left, cut where a sentence ends."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from trainables.datasets.problems import Ledger, count_of

BLANKS: Final = re.compile(r"\[\*\*.*?\*\*\]|_{2,}|\b\w*X{3,}\w*\b", re.DOTALL)
"""What stands where names, dates and places were: `___` in MIMIC, `XXXX` in the Indiana reports, `[**...**]` in older ones."""
HEADING: Final = re.compile(r"^[ \t]*([A-Z][A-Z /&,()-]{2,60}?)[ \t]*:", re.MULTILINE)
SENTENCE_END: Final = re.compile(r"(?<=[.!?;])\s+")


def clean_text(text: str) -> str:
    """A text in one line, without the blanks of de-identification and the spaces and marks that they leave behind."""
    words = " ".join(BLANKS.sub(" ", text).split())
    words = re.sub(r"\s+([.,;:!?)])", r"\1", words)
    words = re.sub(r"([.,;:!?])(?:\s*[.,;:])+", r"\1", words)
    return words.strip(" ,;:-") if any(sign.isalnum() for sign in words) else ""


def section_of(report: str, name: str) -> str:
    """The text under a heading, up to the next one; empty where the report has no such heading.

    Args:
        report: with headings of capitals and a colon at the beginning of lines, as in MIMIC-CXR.
        name: of the heading, in any case.
    """
    headings = list(HEADING.finditer(report))
    ends = [*(heading.start() for heading in headings[1:]), len(report)]
    for heading, end in zip(headings, ends, strict=True):
        if heading[1].casefold() == name.casefold():
            return clean_text(report[heading.end() : end])
    return ""


def cut_at_sentence(text: str, num_tokens_of: Callable[[str], int], most: int) -> str:
    """As many whole sentences as fit, or, where not even the first fits, as many of its words.

    Args:
        text: one line.
        num_tokens_of: counts tokens, those at both ends included.
        most: tokens that fit.
    """
    if num_tokens_of(text) <= most:
        return text
    sentences = SENTENCE_END.split(text)
    return _fitting(sentences, num_tokens_of, most) or _fitting(sentences[0].split(), num_tokens_of, most)


def cut_texts(texts: Sequence[str], num_tokens_of: Callable[[str], int], ledger: Ledger, *, most: int) -> list[str]:
    """The texts, those that are too long cut at the end of a sentence; how many were is said.

    Args:
        texts: one a film.
        num_tokens_of: counts the tokens of a text.
        ledger: is told how many were cut.
        most: tokens that a text may have.
    """
    cut = [cut_at_sentence(text, num_tokens_of, most) for text in texts]
    num_cut = sum(whole != other for whole, other in zip(texts, cut, strict=True))
    if num_cut:
        verb = "is" if num_cut == 1 else "are"
        ledger.say(
            f"{count_of(num_cut, 'text')} of {len(texts):,} {verb} longer than {most} tokens and cut where a sentence ends."
        )
    return cut


def _fitting(parts: Sequence[str], num_tokens_of: Callable[[str], int], most: int) -> str:
    """The longest beginning that fits, found by halves: more parts never take fewer tokens."""
    fits, too_many = 0, len(parts) + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if num_tokens_of(" ".join(parts[:middle])) <= most:
            fits = middle
        else:
            too_many = middle
    return " ".join(parts[:fits])
