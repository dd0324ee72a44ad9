"""CT windows by name: which Hounsfield units are black and which are white.

Source: Radiopaedia, "Windowing (CT)", radiopaedia.org/articles/windowing-ct: typical widths and levels of the chest's lungs,
the abdomen's soft tissues, the spine's bone and the head's brain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from trainables.datasets.containers import Kind


@dataclass(frozen=True, kw_only=True, slots=True)
class CtWindow:
    """What part of the Hounsfield scale a film shows.

    Attributes:
        name: by which users ask for it.
        center_hu: the level that is middle grey, in Hounsfield units: air -1,000, water 0.
        width_hu: between black and white.
    """

    name: str
    center_hu: float
    width_hu: float

    @property
    def kind(self) -> Kind:
        """What films that are seen through it are, for the grey levels of a data set."""
        through = f"each in the CT window {self.name}, centre {self.center_hu:,.0f} HU, width {self.width_hu:,.0f} HU"
        return Kind(name="DICOM", bits=None, own_scale=through)


CT_WINDOWS: Final[Mapping[str, CtWindow]] = {
    window.name: window
    for window in (
        CtWindow(name="lung", center_hu=-600, width_hu=1500),
        CtWindow(name="soft_tissue", center_hu=50, width_hu=400),
        CtWindow(name="bone", center_hu=400, width_hu=1800),
        CtWindow(name="brain", center_hu=40, width_hu=80),
    )
}


def window_of(name: str | None) -> CtWindow | None:
    """The window of this name; none where none is asked for.

    Raises:
        ValueError: there is no such window.
    """
    if name is not None and name not in CT_WINDOWS:
        raise ValueError(f"`--window` must be one of {', '.join(CT_WINDOWS)}, but got {name!r}. Choose one.")
    return None if name is None else CT_WINDOWS[name]
