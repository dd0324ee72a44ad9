"""Data cards: counts by another reading of the data, one and the same in JSON, Markdown and HTML, every text escaped."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from stand_ins import chexpert

from trainables.datasets.base import SPLITS
from trainables.datasets.chexpert import CheXpertSource
from trainables.datasets.data_card import as_page, as_text, card_of, write_card
from trainables.datasets.store import PreparedDataset
from trainables.datasets.writing import write_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    root = tmp_path_factory.mktemp("chexpert")
    return write_dataset(CheXpertSource.create(chexpert(root)), root / "prepared")


def test_every_film_is_counted_once_in_each_table(data: PreparedDataset) -> None:
    card = card_of(data)
    for split in SPLITS:
        films = data.split(split)
        assert card["size"]["films"][split] == data.num_samples[split]
        for table in ("view", "sex", "age"):
            assert sum(row[split] for row in card[table].values()) == len(films)
        adults = [age for age in films.ages if age is not None and 40 <= age < 60]
        assert card["age"]["40 to 59"][split] == len(adults)
        assert card["findings"]["Edema"][split] == len(films.indices_with("Edema"))
        assert card["not_known"]["Edema"][split] == sum("Edema" in findings for findings in films.unknown)


def test_conditions_go_together_as_often_either_way(data: PreparedDataset) -> None:
    together = card_of(replace(data, conditions=("Edema", "Support Devices", "No Finding")))["together"]
    everywhere = [findings for split in SPLITS for findings in data.split(split).conditions]
    assert together["Edema"]["Support Devices"] == together["Support Devices"]["Edema"]
    assert together["No Finding"]["No Finding"] == sum("No Finding" in findings for findings in everywhere)
    assert together["Edema"]["No Finding"] == 0


def test_the_three_forms_hold_the_same_numbers(data: PreparedDataset) -> None:
    write_card(data)
    card = json.loads((data.folder / "data_card.json").read_text())
    text, page = ((data.folder / f"data_card.{ending}").read_text() for ending in ("md", "html"))
    assert card == json.loads(json.dumps(card_of(data)))
    lines, rows, in_rows = text.splitlines(), [], False
    for line in lines:
        in_rows = line.startswith("| ") and (in_rows or "| ---" in line)
        rows += [line] if in_rows and "| ---" not in line else []
    assert re.findall(r"<td>(.*?)</td>", page) == [cell for row in rows for cell in row[2:-2].split(" | ")]
    assert len(rows) == 20


def test_texts_are_escaped(data: PreparedDataset, tmp_path: Path) -> None:
    card = card_of(replace(data, name="<b>", said=("a | <script>",)))
    assert "<script>" not in as_page(card) and "&lt;script&gt;" in as_page(card) and "<b>" not in as_page(card)
    assert "a | <script>" in as_text(card)
