"""Age, sex and view of a film, in the many ways in which tables write them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

from trainables.datasets.problems import Ledger, count_of
from trainables.datasets.rows import is_missing

T = TypeVar("T")
MAX_AGE = 120
SEX_WORDS = {"f": "F", "female": "F", "woman": "F", "m": "M", "male": "M", "man": "M"}
VIEW_WORDS = {"pa": "PA", "posteroanterior": "PA", "ap": "AP", "anteroposterior": "AP"}
VIEW_FILLERS = {
    *("frontal", "view", "chest", "projection", "position", "film", "xray", "x", "ray", "cxr", "portable", "mobile"),
    *("thorax", "bedside", "erect", "upright", "supine", "semi", "semierect", "standing", "sitting", "horizontal"),
}
LATERAL_WORDS = {"lateral", "laterals", "lat", "latl", "llat", "rlat", "laterolateral", "profile", "ll", "rl", "l"}
LATERAL_FILLERS = VIEW_FILLERS | {"left", "right", "r", "side"}
AGE = re.compile(r"(\d+)(?:\.\d+)?\s*(y|yr|yrs|years?|m|mo|months?|w|wk|weeks?|d|days?)?(?:\s*old)?\.?", re.IGNORECASE)


class KnownFields:
    """Reads the optional fields of one collection, and counts what is not understood."""

    def __init__(self) -> None:
        self._strange: dict[str, Counter[str]] = {"age": Counter(), "sex": Counter(), "view": Counter()}
        self._num_too_old = 0
        self._lateral: Counter[str] = Counter()

    def age(self, text: str) -> int | None:
        """Years; nothing where that is not known, or above 120."""
        age = self._read("age", text, age_in_years)
        if age is None or age <= MAX_AGE:
            return age
        self._num_too_old += 1
        return None

    def sex(self, text: str) -> str | None:
        """ "F", "M" or nothing."""
        return self._read("sex", text, lambda sex: SEX_WORDS.get(sex.casefold().strip(" .")))

    def view(self, text: str) -> str | None:
        """ "PA", "AP" or nothing."""
        return self._read("view", text, frontal_view)

    def is_frontal(self, text: str) -> bool:
        """Whether a film may be frontal; lateral ones are counted."""
        lateral = is_lateral(text)
        self._lateral[text] += lateral
        return not lateral

    def report(self, ledger: Ledger) -> None:
        """Say how many films have values that mean nothing here."""
        lateral = +self._lateral
        if lateral:
            films = f"{count_of(lateral.total(), 'film')} {'is' if lateral.total() == 1 else 'are'}"
            ledger.say(f"{films} lateral and left out, since only frontal ones are prepared: {_most_common(lateral)}.")
        for column, strange in self._strange.items():
            if strange:
                films = count_of(strange.total(), "film")
                ledger.say(f"`{column}` of {films} was not understood and is left out: {_most_common(strange)}.")
        if self._num_too_old:
            ledger.say(f"Ages of {count_of(self._num_too_old, 'film')} are above {MAX_AGE} and are left out.")

    def _read(self, column: str, text: str, understood: Callable[[str], T | None]) -> T | None:
        if is_missing(text):
            return None
        value = understood(text)
        if value is None:
            self._strange[column][text] += 1
        return value


@lru_cache(maxsize=4096)  # tables have few values in many rows
def age_in_years(text: str) -> int | None:
    """Whole years of "54", "54.0", "054Y", "54 years", and 0 of "6M", "3W" or "20D"; None for what is no age."""
    match = AGE.fullmatch(text.strip())
    if match is None:
        return None
    number, unit = int(match[1]), (match[2] or "y")[0].lower()
    return number // {"y": 1, "m": 12, "w": 52, "d": 365}[unit]


@lru_cache(maxsize=4096)
def frontal_view(text: str) -> str | None:
    """ "PA" or "AP" where a text names one of them and nothing else that matters; None otherwise."""
    views = {VIEW_WORDS.get(word) for word in _words(text) - VIEW_FILLERS}
    return views.pop() if len(views) == 1 else None


@lru_cache(maxsize=4096)
def is_lateral(text: str) -> bool:
    """Whether a text says that a film was taken from the side, as "LATERAL", "LL" or "Left lat." do."""
    words = _words(text) - LATERAL_FILLERS
    return bool(words) and words <= LATERAL_WORDS


def _words(text: str) -> set[str]:
    joined = re.sub(r"(?<=\b[A-Za-z])\.(?=[A-Za-z])|(?<=o)[\s-](?=[ap])|(?<=o)-", "", text.casefold())
    return {word for word in re.split(r"[^a-z]+", joined) if word}


def _most_common(values: Counter[str]) -> str:
    more = f" and {len(values) - 5} other values" if len(values) > 5 else ""
    return ", ".join(f"{value!r} ({count})" for value, count in values.most_common(5)) + more
