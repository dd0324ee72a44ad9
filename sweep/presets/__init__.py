"""Presets: whole studies by name, one file each, as functions that give their configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sweep.config import SweepConfig
from sweep.presets.chambon import chambon
from sweep.presets.chexgenbench import chexgenbench
from sweep.presets.demo import demo
from sweep.presets.nih64 import nih64
from sweep.presets.nih512 import nih512
from sweep.presets.pixels_under_pressure import pixels_under_pressure
from sweep.presets.pixels_under_pressure_corrected import pixels_under_pressure_corrected
from sweep.presets.roentgen import roentgen
from sweep.presets.selora_iu import selora_iu
from sweep.presets.selora_montgomery import selora_montgomery

_PRESETS: Final[tuple[Callable[[], SweepConfig], ...]] = (
    *(demo, nih64, nih512, pixels_under_pressure, pixels_under_pressure_corrected),
    *(selora_iu, selora_montgomery, roentgen, chambon, chexgenbench),
)
PRESETS: Final[dict[str, Callable[[], SweepConfig]]] = {preset.__name__: preset for preset in _PRESETS}
