"""Vega, which draws the page's plots, as text for the page: made once by vl-convert, kept in the user's cache."""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Final

from analysis.files import user_cache, whole_file

PACKAGE: Final = "vl-convert-python"
PATIENCE_S: Final = 120.0
"""How long it may take on a busy machine; the page of a finished sweep must not wait for ever."""
COMMAND: Final = "import vl_convert; print(vl_convert.javascript_bundle('window.vegaEmbed = vegaEmbed;'))"


@lru_cache(maxsize=1)
def vega() -> str:
    """Vega with its licences as one script that leaves `window.vegaEmbed` and no other name.

    Bundling takes two to four seconds of a core, so the result is kept in a file of the user's cache for the next process.

    Raises:
        RuntimeError: vl-convert is not there, or could not bundle it.
    """
    licences = files("analysis.report.instrument").joinpath("licences.txt").read_text(encoding="utf-8")
    try:
        kept = user_cache() / f"vega-{PACKAGE}-{version(PACKAGE)}.js"
    except PackageNotFoundError as error:
        raise RuntimeError(f"`{PACKAGE}` must be installed, but got none. Run `pip install {PACKAGE}`.") from error
    try:
        bundle = kept.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        bundle = _bundle()
        _keep(kept, bundle)
    return f"/*\n{licences}*/\n(() => {{{bundle}}})();"


def _keep(path: Path, bundle: str) -> None:
    """Write the script down; where no folder can be written, the next process bundles again."""
    try:
        with whole_file(path) as file:
            file.write(bundle.encode())
    except OSError:
        return


def _bundle() -> str:
    """Bundle in a process of its own, as the JavaScript engine keeps threads and 100 MB."""
    command = [sys.executable, "-c", COMMAND]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"`{PACKAGE}` must bundle Vega for the page, but got: {error}.") from error
    if done.returncode or "window.vegaEmbed" not in done.stdout:
        raise RuntimeError(
            f"`{PACKAGE}` must bundle Vega for the page, but got exit code {done.returncode}: {done.stderr[-500:].strip()}. "
            f"Try `python -c {COMMAND!r}`."
        )
    return done.stdout
