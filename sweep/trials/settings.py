"""What the configuration says of trials beside their training."""

from __future__ import annotations

from pathlib import Path

from trainables.settings import Section


class CacheConfig(Section):
    """Where what frozen encoders make of the films is kept, for all sweeps of the same films.

    Attributes:
        path: a folder that every machine of the sweep sees. None, the default: `PREPARED.cache` beside the prepared data,
            or the run directory where that cannot be written or the films are drawn. It may be deleted between sweeps.
    """

    path: Path | None = None
