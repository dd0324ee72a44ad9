"""MICCAI 2024's SeLoRA and what it was compared with, on the films of Montgomery County."""

from __future__ import annotations

from sweep.config import SweepConfig
from sweep.presets.selora_iu import selora_study


def selora_montgomery() -> SweepConfig:
    r"""SeLoRA (Mao et al. 2024) on 138 films of Montgomery County: as `selora_iu`, 100 epochs; sex, age and reading as prompt.

        python -m sweep.prepare montgomery --root MontgomerySet --to prepared/selora_montgomery --resolution 224 \
            --fit crop --caption text --base sd15

    Published with a training and a test split alone, of shares that the text at hand lacks. Ours keeps a validation split: 70,
    15 and 15 % of so few films. Its Fréchet distances are therefore of two dozen films and say little: KID is unbiased
    there. The rest is as in `selora_iu`.
    """
    return selora_study("selora_montgomery", 100)
