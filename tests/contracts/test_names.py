"""One grammar for unknown names: analysis and trainables, which do not know each other, answer in the same words."""

from __future__ import annotations

import pytest

from analysis.checks import look_up, unknown_name
from trainables import naming

CASES = [
    (
        "loar",
        ("lora", "unet"),
        "`strategy` must be a known name, but got 'loar'. Did you mean 'lora'? Valid: lora, unet.",
    ),
    (
        "LORA",
        ("unet", "lora"),
        "`strategy` must be a known name, but got 'LORA'. Did you mean 'lora'? Valid: lora, unet.",
    ),
    ("edema", ("Edema",), "`strategy` must be a known name, but got 'edema'. Did you mean 'Edema'? Valid: Edema."),
    ("xyzzy", ("unet", "lora"), "`strategy` must be a known name, but got 'xyzzy'. Choose one of: lora, unet."),
    (
        "lr",
        ("lora.lr", "unet.lr", "alpha"),
        "`strategy` must be a known name, but got 'lr'. Did you mean 'lora.lr' or 'unet.lr'? Valid: alpha, lora.lr, unet.lr.",
    ),
    ("rank", (), "`strategy` must be a known name, but got 'rank'. There is none; leave it out."),
]


@pytest.mark.parametrize(("name", "valid", "answer"), CASES)
def test_an_unknown_name_is_answered_alike_everywhere(name: str, valid: tuple[str, ...], answer: str) -> None:
    assert unknown_name("strategy", name, valid) == str(naming.unknown_name("strategy", name, valid)) == answer


def test_a_known_name_is_looked_up_and_an_unknown_one_answered() -> None:
    assert look_up({"fid": 1, "kid": 2}, "kid", "metric") == 2
    with pytest.raises(ValueError, match=r"`metric` must be a known name, but got 'fd'. Did you mean 'fid'"):
        look_up({"fid": 1, "kid": 2}, "fd", "metric")
