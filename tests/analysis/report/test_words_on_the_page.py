"""Maps of words on the page: those that are there, within the room of a trial's pictures, and damaged ones by name."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from synthetic_runs import CONDITIONS, quick_report, rung_run, write_word_maps

from analysis.report.pictures import MAX_PICTURE_BYTES

pytestmark = pytest.mark.slow


def test_the_page_holds_the_maps_that_there_are_and_says_where_each_is(tmp_path: Path) -> None:
    run = rung_run(tmp_path / "run")
    assert 'data-words="0:' not in quick_report(run).read_text()
    write_word_maps(run / "trials" / "00001" / "samples.png", [0])
    text = quick_report(run).read_text()
    assert re.findall(r'data-words="(0:[^"]+)"', text) == ["0:00001"]
    told = json.loads(re.findall(r'id="content">(.*?)</script>', text)[0].replace("\\u003c", "<"))["word_maps"]
    assert told["0:00001"]["words"] == ["Chest"] and told["0:00001"]["height"] == 2 * len(CONDITIONS) * 10


def test_films_and_maps_of_a_trial_keep_the_room_of_its_pictures(tmp_path: Path) -> None:
    run, rng = rung_run(tmp_path / "run"), np.random.default_rng(0)
    sheet = run / "trials" / "00001" / "samples.png"
    text = PngInfo()
    text.add_text("word_maps", json.dumps({"words": [], "side": 8, "margin": 1, "peaks": []}))
    for path, words in ((sheet, None), (sheet.with_name("samples-words.png"), text)):
        Image.fromarray(rng.integers(0, 255, (400, 400), np.uint8)).save(path, pnginfo=words)
    page = quick_report(run).read_text()
    films = re.search(r'data-sheet="0:00001"(?: src="|>)data:image/webp;base64,([A-Za-z0-9+/=]+)', page)
    maps = re.search(r'data-words="0:00001">data:image/webp;base64,([A-Za-z0-9+/=]+)', page)
    assert films is not None and maps is not None
    assert sum(len(base64.b64decode(match[1])) for match in (films, maps)) <= MAX_PICTURE_BYTES


def test_a_picture_that_does_not_say_what_it_maps_is_named(tmp_path: Path) -> None:
    run = rung_run(tmp_path / "run")
    Image.new("L", (4, 4)).save(run / "baseline-words.png")
    with pytest.raises(
        ValueError, match=r"`baseline-words.png` must say in its text which words it maps, but got None"
    ):
        quick_report(run)
