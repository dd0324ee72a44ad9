"""Which levels are black and white, from the levels of all films alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from trainables.datasets.containers import EIGHT_BITS, GreyRange, Kind, Levels, grey_ranges
from trainables.datasets.problems import Ledger, described

PNG = Kind(name="16-bit PNG", bits=16)
FLOAT = Kind(name="float TIFF", bits=None)


def films(highs: Sequence[float], kind: Kind = PNG, bright: float | None = None) -> list[Levels]:
    """Films from 0 to these levels, with a hundredth of their pixels above 0.9 of it or above another level."""
    return [
        Levels(file=f"{n}.png", kind=kind, low=0, high=high, dark=0, bright=0.9 * high if bright is None else bright)
        for n, high in enumerate(highs)
    ]


def read(members: Sequence[Levels], **said: int) -> tuple[GreyRange | None, str]:
    """The range of one kind, and the problems."""
    ledger = Ledger()
    ranges = grey_ranges(members, ledger, **said)  # type: ignore[arg-type]
    return ranges.get(members[0].kind), " ".join(described(ledger.problems))


@pytest.mark.parametrize(
    ("highs", "bits"),
    [
        ([4095, 4000, 3500, 2100, 1800, 1024], 12),  # an honest collection: some films need 11 bits
        ([2050] + [1200] * 99, 12),
        ([16383] * 9 + [4096], 14),
        ([65535, 20000, 65000], 16),
        ([255, 128, 60], 8),
    ],
)
def test_films_of_one_depth_are_read_by_it(highs: list[int], bits: int) -> None:
    assert read(films(highs)) == (GreyRange(0, 2**bits - 1), "")


@pytest.mark.parametrize(
    ("highs", "came"),
    [
        (
            [16383] * 99 + [65535],
            "1 film of 16 bits (99.png) beside 99 films of 14 bits (0.png, 1.png, 2.png and 96 more)",
        ),
        (
            [4095] * 49 + [16383],
            "1 film of 14 bits (49.png) beside 49 films of 12 bits (0.png, 1.png, 2.png and 46 more)",
        ),
        ([4095, 1023] * 3, "3 films of 10 bits (1.png, 3.png, 5.png) beside 3 films of 12 bits (0.png, 2.png, 4.png)"),
        ([255, 65535, 65535], "1 film of 8 bits (0.png) beside 2 films of 16 bits (1.png, 2.png)"),
        ([1023, 1023, 1100], "1 film of 12 bits (2.png) beside 2 films of 10 bits (0.png, 1.png)"),
        ([255, 4095, 65535], "1 film of 8 bits (0.png), 1 film of 12 bits (1.png) beside 1 film of 16 bits (2.png)"),
    ],
)
def test_films_of_several_depths_are_refused_by_name(highs: list[int], came: str) -> None:
    """No film decides for the others: the bright pixel of one would leave all others dark."""
    grey, message = read(films(highs))
    assert grey is None and came in message and "--bits N" in message and "--range LOW HIGH" in message


def test_the_users_bits_decide_for_films_of_several_depths() -> None:
    assert read(films([4095, 1023] * 3), bits=12) == (GreyRange(0, 4095), "")


def test_floats_of_several_spans_are_refused() -> None:
    grey, message = read(films([1.0, 1.0, 255.0], FLOAT))
    assert grey is None
    assert "1 film of levels up to 255 (2.png) beside 2 films of levels up to 1 (0.png, 1.png)" in message
    assert read(films([1.0, 0.7, 0.4], FLOAT)) == (GreyRange(0, 1), "")
    assert read(films([4095.0, 1500.5], FLOAT)) == (GreyRange(0, 4095), "")


def test_a_bright_mark_in_every_film_does_not_decide_either() -> None:
    grey, message = read(films([65535] * 20, bright=16000))
    assert grey is None and "most have less than a hundredth of their pixels above a quarter of white" in message
    assert read(films([65535] * 20, bright=17000)) == (GreyRange(0, 65535), "")


def test_pictures_of_eight_bits_may_vary() -> None:
    assert read(films([255, 50, 255, 60, 255], EIGHT_BITS)) == (GreyRange(0, 255), "")


def test_constant_films_have_no_depth_and_are_refused_as_such() -> None:
    grey, message = read([*films([4095] * 3), *films([0, 17, 65535], bright=0)])
    assert grey == GreyRange(0, 4095)
    assert "constant or almost constant picture" in message and "3 films: 0.png, 1.png, 2.png" in message
    assert "depth" not in message
