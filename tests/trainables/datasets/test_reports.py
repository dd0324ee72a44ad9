"""Reports as captions: sections, blanks of de-identification, and cuts at sentences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.datasets.problems import Ledger
from trainables.datasets.reports import clean_text, cut_at_sentence, cut_texts, section_of

REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___-year-old woman, from ___.

 FINDINGS:

 PA and lateral views. Heart size: normal.
 No effusion on ___.

 IMPRESSION:

 No acute process, as told Dr. ___ at 3:45.
"""


def words(text: str) -> int:
    return len(text.split()) + 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("impression", "No acute process, as told Dr. at 3:45."),
        ("Findings", "PA and lateral views. Heart size: normal. No effusion on."),
        ("comparison", ""),
    ],
)
def test_a_section_ends_where_the_next_begins(name: str, text: str) -> None:
    assert section_of(REPORT, name) == text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("There are no XXXX of a pleural effusion.", "There are no of a pleural effusion."),
        ("Normal chest x-XXXX.", "Normal chest x-."),
        ("Seen on [**2101-2-3**] ,  unchanged .", "Seen on, unchanged."),
        ("___.", ""),
        ("Axxx fXXXXd, well", "Axxx, well"),
        ("", ""),
    ],
)
def test_blanks_leave_nothing_behind(text: str, clean: str) -> None:
    assert clean_text(text) == clean


def test_a_text_is_cut_where_a_sentence_ends() -> None:
    text = "One two three. Four five. Six seven eight nine."
    assert cut_at_sentence(text, words, 11) == text
    assert cut_at_sentence(text, words, 10) == "One two three. Four five."
    assert cut_at_sentence(text, words, 4) == "One two"


@given(st.lists(st.text(alphabet="ab .!?", max_size=30), max_size=8), st.integers(3, 12))
def test_what_is_cut_fits_and_begins_as_the_text_does(sentences: list[str], most: int) -> None:
    text = clean_text(" ".join(sentences))
    cut = cut_at_sentence(text, words, most)
    assert words(cut) <= most or cut == ""
    assert text.startswith(cut) and (cut == text) == (words(text) <= most or not text)


def test_cuts_are_counted() -> None:
    ledger = Ledger()
    assert cut_texts(["One.", "One two. Three four."], words, ledger, most=4) == ["One.", "One two."]
    assert ledger.said == ["1 text of 2 is longer than 4 tokens and cut where a sentence ends."]
