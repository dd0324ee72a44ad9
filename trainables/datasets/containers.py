"""Which grey levels a container may hold, and which of them a data set uses: found from all of its films together."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from trainables.datasets.problems import Ledger, count_of, listed

DEPTHS = (8, 10, 12, 14, 16)
"""Bits that detectors and programs store. A film has the least that holds its brightest level; all films of a kind must have the
same, which is clear where the brightest level of all lies in its upper half: of 12 bits, some films may need 11 alone, and one
that needs 10 or 14 is another film or a mark that was drawn. Which of them, the user must say."""
_DEPTHS = ", ".join(map(str, DEPTHS))
NUM_GREYS = 256
MIN_SHARE = 1 / 8
"""Share of a range that films must fill where the range was only found, not given."""
MIN_BRIGHT = 1 / 4
"""Share of such a range above which most deep films must have a hundredth of their pixels: two bits less would hold them."""
ALMOST_CONSTANT = 8
"""Of 256 grey levels; a film of which 98 % of the pixels lie within so few shows nothing."""
BITS_OR_RANGE = "Say which levels are black and white: --bits N (0 to 2^N - 1), or --range LOW HIGH."
RANGE = "Say which levels are black and white with --range LOW HIGH."


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of container, whose films are all scaled alike.

    Attributes:
        name: what messages call it.
        bits: that an integer of it has; none for floats, and for films that bring their own range.
        own_scale: how its films were scaled already, in the words of a sentence; empty where they are still to be.
    """

    name: str
    bits: int | None
    own_scale: str = ""


EIGHT_BITS = Kind(name="8-bit pictures", bits=8)
DICOM = Kind(name="DICOM", bits=None, own_scale="each scaled by its own tags")


@dataclass(frozen=True, slots=True)
class GreyRange:
    """The level that is black and the one that is white.

    Attributes:
        low: level that is black, in the file's own units.
        high: level that is white.
    """

    low: float
    high: float

    def __str__(self) -> str:
        """The kind as a user would write it."""
        return f"{_level(self.low)} to {_level(self.high)}"


FULL = GreyRange(0, NUM_GREYS - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Levels:
    """What levels a film has.

    Attributes:
        file: the film, as messages name it.
        kind: the kind of file that it lies in, which decides what its levels can mean.
        low, high: the darkest and brightest level.
        dark, bright: levels below and above which lies a hundredth of the pixels.
    """

    file: str
    kind: Kind
    low: float
    high: float
    dark: float
    bright: float


def grey_ranges(
    films: Sequence[Levels], ledger: Ledger, *, bits: int | None = None, given: GreyRange | None = None
) -> dict[Kind, GreyRange]:
    """Black and white of each kind of container, from all of its films.

    Args:
        films: all films of the data set.
        ledger: takes kinds that are ambiguous and films that show nothing, and says what was found.
        bits: the user's word for containers of integers.
        given: the user's word for all that do not bring a range; either acts on the kinds deeper than 8 bits, and on
            8 bits where there are no deeper ones.
    """
    kinds: dict[Kind, list[Levels]] = {}
    for film in films:
        kinds.setdefault(film.kind, []).append(film)
    asked = _asked(kinds, bits, given)
    _require_effect(asked, ledger, bits=bits, given=given)
    ranges = {kind: asked.get(kind) or _found(kind, members, ledger) for kind, members in kinds.items()}
    for kind, members in kinds.items():
        if kind in asked and given is None:
            _require_within(members, asked[kind], ledger)
    settled = {kind: grey_range for kind, grey_range in ranges.items() if grey_range is not None}
    for kind, grey in settled.items():
        _say(kind, kinds[kind], grey, ledger)
        _require_contrast(kinds[kind], grey, ledger)
    return settled


def require_range(low: float, high: float) -> GreyRange:
    """The range, if its ends are numbers that ascend.

    Raises:
        ValueError: they are not.
    """
    if not -float("inf") < low < high < float("inf"):
        raise ValueError(
            f"`--range` must be two numbers, the level of black before that of white, but got {low:g} {high:g}. "
            "Swap or mend them."
        )
    return GreyRange(low, high)


def _asked(kinds: Mapping[Kind, Sequence[Levels]], bits: int | None, given: GreyRange | None) -> dict[Kind, GreyRange]:
    scaled = [kind for kind in kinds if not kind.own_scale]
    acted_on = [kind for kind in scaled if kind != EIGHT_BITS] or scaled
    if given is not None:
        return dict.fromkeys(acted_on, given)
    if bits is None:
        return {}
    return {kind: GreyRange(0, 2**bits - 1) for kind in acted_on if kind.bits is not None and kind.bits >= bits}


def _require_effect(
    asked: Mapping[Kind, GreyRange], ledger: Ledger, *, bits: int | None, given: GreyRange | None
) -> None:
    if asked or (bits is None and given is None):
        return
    option, came = ("--range", str(given)) if given else ("--bits", str(bits))
    rule = f"`{option}` must have films to act on, with levels that it can hold"
    ledger.refuse(rule, f"{came} and no such film", "Leave it out.")


def _found(kind: Kind, films: Sequence[Levels], ledger: Ledger) -> GreyRange | None:
    """The range that is meant by the levels of all films, or a problem."""
    if kind.own_scale:
        return FULL
    telling = [film for film in films if not _is_constant(kind, film)] or films
    low, high = min(film.low for film in telling), max(film.high for film in telling)
    remedy = RANGE if low < 0 or kind.bits is None else BITS_OR_RANGE
    if low >= 0 and len(by_end := _by_end(kind, telling)) > 1:
        rule = f"`{kind.name}` must hold films of one depth, the least of {_DEPTHS} bits that holds a film's levels"
        ledger.refuse(rule, _several(kind, by_end), f"{remedy} Films that store another depth are to be exported anew.")
        return None
    levels = f"levels from {_level(low)} to {_level(high)} in {count_of(len(telling), 'film')}"
    rule = f"`{kind.name}` must say by their levels which is black and which is white"
    grey = _meant(kind, low, high)
    if grey is None:
        ledger.refuse(rule, levels, remedy)
        return None
    if dim := _dim(kind, telling, grey):
        ledger.refuse(rule, f"{levels}, of which {dim}", remedy)
        return None
    return grey


def _is_constant(kind: Kind, film: Levels) -> bool:
    """Whether a film shows nothing at any depth, and so tells nothing of the levels that the others use."""
    return film.bright - film.dark < min(_end(kind, film), NUM_GREYS) * ALMOST_CONSTANT / NUM_GREYS


def _by_end(kind: Kind, films: Iterable[Levels]) -> dict[float, list[Levels]]:
    """The films by the highest level of the least depth that holds theirs, in its order."""
    films_by_end: dict[float, list[Levels]] = {}
    for film in sorted(films, key=lambda film: _end(kind, film)):
        films_by_end.setdefault(_end(kind, film), []).append(film)
    return films_by_end


def _end(kind: Kind, film: Levels) -> float:
    return _end_of(film.high, may_be_1=kind.bits is None)


@lru_cache(maxsize=2**12)
def _end_of(high: float, *, may_be_1: bool) -> float:
    ends = [*((1.0,) if may_be_1 else ()), *(2.0**bits - 1 for bits in DEPTHS)]
    return next((end for end in ends if high <= end), float("inf"))


def _several(kind: Kind, by_end: Mapping[float, Sequence[Levels]]) -> str:
    """Films of each depth, the fewest first: those are most likely the odd ones."""

    def described(end: float) -> str:
        films = by_end[end]
        bits = f"{math.log2(end + 1):.0f}" if math.isfinite(end) else f"more than {DEPTHS[-1]}"
        depth = f"levels up to {_level(end)}" if kind.bits is None else f"{bits} bits"
        return f"{count_of(len(films), 'film')} of {depth} ({listed(film.file for film in films)})"

    *odd, most = sorted(by_end, key=lambda end: len(by_end[end]))
    return f"{', '.join(map(described, odd))} beside {described(most)}"


def _meant(kind: Kind, low: float, high: float) -> GreyRange | None:
    if low < 0:
        return None
    if kind.bits is None and 0.5 < high <= 1:
        return GreyRange(0, 1)
    for bits in DEPTHS:
        if 2 ** (bits - 1) <= high <= 2**bits - 1 and high - low >= 2 ** (bits - 2):
            return GreyRange(0, 2**bits - 1)
    return None


def _dim(kind: Kind, films: Sequence[Levels], grey: GreyRange) -> str:
    """Films that a found range would leave almost without contrast; for 8 bits their middle one, as pictures vary."""
    span = grey.high - grey.low
    few = [film.file for film in films if film.high - grey.low < span * MIN_SHARE and kind != EIGHT_BITS]
    if few or statistics.median(film.bright - film.dark for film in films) < span * MIN_SHARE:
        return f"{listed(few) if few else 'most'} fill less than an eighth"
    if kind != EIGHT_BITS and statistics.median(film.bright for film in films) < grey.low + span * MIN_BRIGHT:
        return "most have less than a hundredth of their pixels above a quarter of white, as where a mark was drawn"
    return ""


def _require_within(films: Iterable[Levels], grey: GreyRange, ledger: Ledger) -> None:
    for film in films:
        if film.low < grey.low or film.high > grey.high:
            came = f"levels from {_level(film.low)} to {_level(film.high)}"
            remedy = "Give the bits that hold them all, or cut them off with --range LOW HIGH."
            ledger.refuse(f"`--bits` must hold the levels of every film, {grey}", came, remedy, file=film.file)


def _require_contrast(films: Iterable[Levels], grey: GreyRange, ledger: Ledger) -> None:
    least = (grey.high - grey.low) * ALMOST_CONSTANT / NUM_GREYS
    for film in films:
        within = min(film.bright, grey.high) - max(film.dark, grey.low)
        if within < least:
            rule = f"`image` must show something, more than {ALMOST_CONSTANT} of {NUM_GREYS} grey levels"
            came = f"a constant or almost constant picture of levels {_level(film.dark)} to {_level(film.bright)}"
            ledger.refuse(rule, came, "Restore the film, or remove its row.", file=film.file)


def _say(kind: Kind, films: Sequence[Levels], grey: GreyRange, ledger: Ledger) -> None:
    if kind.own_scale:
        ledger.say(f"{kind.name}: {count_of(len(films), 'film')}, {kind.own_scale}.")
        return
    high = max(film.high for film in films)
    ledger.say(
        f"{kind.name}: {count_of(len(films), 'film')} whose brightest level is {_level(high)}; black to white is {grey}."
    )


def _level(level: float) -> str:
    return f"{level:,.0f}" if level == round(level) else f"{level:,.4g}"
