"""How tests read and work the page of a run."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path

import numpy as np
from patience import LONG_S
from PIL import Image
from playwright.sync_api import Browser, Locator, Page


def opened(browser: Browser, folder: Path, width: int = 1400, **options: bool | str) -> Page:
    """The page of a run, ready; whatever it asks the network for, says or fails by is an error."""
    page = browser.new_page(viewport={"width": width, "height": 900}, **options)
    page.set_default_timeout(1000 * LONG_S)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: errors.append(dialog.message))
    page.on("request", lambda request: errors.append(request.url) if request.url.startswith("http") else None)
    page.errors = errors
    page.goto((folder / "report.html").as_uri())
    if options.get("java_script_enabled", True):
        page.wait_for_selector("#scatter .chart:last-child svg")
        settled(page)
    return page


def settled(page: Page) -> None:
    """What is out of sight follows when the browser has time."""
    page.wait_for_selector("#instrument[data-late='0']", state="attached")


def set_number(page: Page, name: str, value: float | str) -> None:
    page.fill(f"#limit-{name}-number", str(value))


def left(page: Page) -> list[str]:
    """The trials of the table, in its order."""
    settled(page)
    keys: list[str] = page.eval_on_selector_all("#trials tbody tr", "rows => rows.map(row => row.dataset.key)")
    return [key.partition(":")[2] for key in keys]


def command(page: Page, which: str = "command") -> dict[str, str]:
    """The options of a command that the page gives."""
    words = shlex.split(page.inner_text(f"#{which}"))
    assert words[:3] == ["python", "-m", "sweep.export"]
    return dict(zip(words[3::2], words[4::2], strict=True))


def rule_limits(page: Page) -> list[tuple[str, str, float]]:
    """The limits as the rule for `--pick` says them."""
    conditions = re.findall(r"(\S+) (<=|>=) (\S+)", command(page, "rule")["--pick"].partition(" where ")[2])
    return [(name, sign, float(value)) for name, sign, value in conditions]


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=3)
    page.mouse.up()


def on_screen(page: Page, place: str) -> dict[str, list[tuple[float, float]]]:
    """Where the browser draws each trial: the corners of its line, or the middle of its point."""
    settled(page)
    drawn = page.eval_on_selector_all(
        f"{place} svg path",
        """paths => paths.filter(one => one.__data__?.datum?.key && one.__data__.mark.marktype !== 'rule').map(one => {
            const box = one.getBoundingClientRect(), matrix = one.getScreenCTM();
            const middle = [[box.x + box.width / 2, box.y + box.height / 2]];
            const isLine = one.__data__.mark.marktype === 'path';
            const corners = () => one.getAttribute('d').slice(1).split('L').map(text => text.split(',').map(Number))
                .map(([x, y]) => { const at = new DOMPoint(x, y).matrixTransform(matrix); return [at.x, at.y]; });
            return [one.__data__.datum.key.split(':')[1], isLine ? corners() : middle];
        })""",
    )
    return {name: [(x, y) for x, y in corners] for name, corners in drawn}


def looks(page: Page, place: str) -> dict[str, list[str]]:
    """How a plot draws each trial: its outline, filling and widths."""
    settled(page)
    drawn = page.eval_on_selector_all(
        f"{place} svg path",
        """paths => paths.filter(one => one.__data__?.datum?.key && one.__data__.mark.marktype !== 'rule').map(one => [
            one.__data__.datum.key.split(':')[1], ['stroke', 'fill', 'stroke-width', 'fill-opacity', 'stroke-opacity'].map(
                name => one.style.getPropertyValue(name) || one.getAttribute(name))])""",
    )
    return dict(drawn)


def _colour_at(picture: Locator, across: float) -> tuple[int, int, int]:
    """Red, green and blue at a share of a picture's width, half way down, as the screen shows it."""
    with Image.open(io.BytesIO(picture.screenshot())) as shot:
        red, green, blue = np.asarray(shot.convert("RGB"))[shot.height // 2, int(shot.width * across)]
    return int(red), int(green), int(blue)


def is_tinted(picture: Locator, across: float, grey: int) -> bool | None:
    """Whether a film is red there or has its own grey; None for anything else, as before its pixels have come."""
    red, _, blue = _colour_at(picture, across)
    if abs(red - grey) <= 3 and abs(blue - grey) <= 3:
        return False
    return True if red - blue > 80 else None


def greys(pictures: list[Locator]) -> list[float]:
    """The greys in the middle of pictures as the screen shows them."""
    return [_grey_at(picture) for picture in pictures]


def _grey_at(picture: Locator) -> float:
    with Image.open(io.BytesIO(picture.screenshot())) as shot:
        return float(np.asarray(shot.convert("L"))[shot.height // 2, shot.width // 2])
