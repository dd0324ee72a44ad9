"""Tables with which users of such programs had trouble: read rightly and said, or refused with the remedy."""

from __future__ import annotations

from pathlib import Path

import pandas
import pytest
from film_folders import HEADER, NUM_FILMS, film_rows, save_film, write_table
from PIL import Image
from prepare_command import CASES, REAL, all_of, app, changed, prepare, prepared, refused, replace_film
from typer.testing import CliRunner

from trainables.datasets.store import PreparedDataset


def counts(data: PreparedDataset) -> dict[str, int]:
    found: dict[str, int] = {}
    for findings in all_of(data, "conditions").values():
        assert isinstance(findings, tuple)
        for finding in findings:
            found[finding] = found.get(finding, 0) + 1
    return found


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("no finding", "No Finding"),
        ("NO_FINDING", "No Finding"),
        ("No findings", "No Finding"),
        ("pleural effusion", "Pleural Effusion"),
        ("Pleural_Effusion", "Pleural Effusion"),
        ("oedema", "Edema"),
    ],
)
def test_known_findings_are_folded_and_that_is_said(root: Path, written: str, read: str) -> None:
    changed(root, {n: {"labels": written} for n in range(30)})
    data, said = prepared(root)
    assert set(counts(data)) == {"No Finding", "Pleural Effusion", "Edema"}
    assert f"'{written}'" in said and f"{read}" in said and "30" in said


@pytest.mark.parametrize(
    "written", ["Edema, Effusion", "Edema;Effusion", "Edema ; pleural_effusion", "Effusion\tEdema"]
)
def test_other_separators_are_read_and_that_is_said(root: Path, written: str) -> None:
    changed(root, {n: {"labels": written} for n in range(2, NUM_FILMS, 3)})
    data, said = prepared(root)
    assert counts(data) == {"No Finding": 40, "Pleural Effusion": 80, "Edema": 40}
    assert "40 films" in said and "separat" in said


@pytest.mark.parametrize(
    "written",
    [
        "['No Finding']",
        "nan",
        "('Edema',)",
        "None",
        "No Finding|Edema",
        "no finding, Edema",
        "Edema, something else",
        "",
        "1",
        "Edema and Effusion",
        '"Edema"',
    ],
)
def test_labels_that_say_nothing_clear_are_refused_with_the_row(root: Path, written: str) -> None:
    message = refused(changed(root, {11: {"labels": written}}))
    assert "`labels`" in message and "line 13 of metadata.csv" in message


def test_a_label_given_twice_counts_once(root: Path) -> None:
    changed(root, {n: {"labels": "Effusion|Edema|Effusion|pleural effusion"} for n in range(2, NUM_FILMS, 3)})
    data, said = prepared(root)
    assert counts(data) == {"No Finding": 40, "Pleural Effusion": 80, "Edema": 40} and "twice" in said


def test_unknown_labels_are_listed_with_counts_and_the_nearest_known(root: Path) -> None:
    changed(root, {n: {"labels": ("Calcified nodule", "calcified nodule")[n % 2]} for n in range(9)})
    data, said = prepared(root)
    assert counts(data)["Calcified nodule"] == 9
    assert "'Calcified nodule' (9; nearest known: Nodule)" in said


def test_what_looks_misspelt_is_refused(root: Path) -> None:
    message = refused(changed(root, {3: {"labels": "Pneumothorx"}, 7: {"labels": "Pneumothorx"}}))
    assert "'Pneumothorx'" in message and "Pneumothorax" in message and "--label-map" in message
    assert "lines 5, 9" in message


def test_all_labels_are_printed_those_below_the_limit_too(root: Path) -> None:
    result = prepare(changed(root, {3: {"labels": "Hernia"}}))
    assert result.exit_code == 0 and "Hernia" in result.output


def test_a_label_map_names_ones_own_labels(root: Path) -> None:
    changed(root, {n: {"labels": "wet lung; heart"} for n in range(9)} | {20: {"labels": "CHF"}})
    (root.parent / "map.csv").write_text("label,finding\nWet_Lung,edema\nheart,Cardiomegaly\nCHF,Edema|Cardiomegaly\n")
    data, _ = prepared(root, "--label-map", str(root.parent / "map.csv"))
    found = all_of(data, "conditions")
    assert found["0"] == found["20"] == ("Edema", "Cardiomegaly")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("label,finding\nPTX\n", "line 2 of map.csv"),
        ("label,finding\nPTX,\n", "line 2 of map.csv"),
        ("label,finding\nPTX,Edema\nptx,Mass\n", "line 3 of map.csv"),
        ("from,to\nPTX,Edema\n", "must have the columns label, finding"),
        ("label,finding\nPTX,Edema\n", "must name a label of the data"),
    ],
)
def test_label_maps_that_cannot_act_are_refused(root: Path, content: str, message: str) -> None:
    (root.parent / "map.csv").write_text(content)
    assert message in refused(write_table(root, film_rows()), "--label-map", str(root.parent / "map.csv"))


# 4. Optional fields


@pytest.mark.parametrize(
    ("column", "written", "field", "read"),
    [
        ("view", "pa", "views", "PA"),
        ("view", "Frontal PA", "views", "PA"),
        ("view", "AP supine", "views", "AP"),
        ("view", "postero-anterior", "views", "PA"),
        ("view", "portable A.P.", "views", "AP"),
        ("sex", "M ", "sexes", "M"),
        ("sex", "Male", "sexes", "M"),
        ("sex", "female", "sexes", "F"),
        ("age", "54.0", "ages", 54),
        ("age", "054Y", "ages", 54),
        ("age", "54 years", "ages", 54),
        ("age", "006M", "ages", 0),
        ("age", "3W", "ages", 0),
    ],
)
def test_what_is_plainly_meant_is_read(root: Path, column: str, written: str, field: str, read: object) -> None:
    data, said = prepared(changed(root, {8: {column: written}}))
    assert all_of(data, field)["8"] == read and "understood" not in said


@pytest.mark.parametrize(
    ("column", "written", "field"),
    [
        ("view", "LATERAL", "views"),
        ("view", "PA or AP", "views"),
        ("sex", "1", "sexes"),
        ("age", "old", "ages"),
        ("age", "-4", "ages"),
    ],
)
def test_what_is_not_understood_is_counted(root: Path, column: str, written: str, field: str) -> None:
    data, said = prepared(changed(root, {n: {column: written} for n in range(8)}))
    assert all_of(data, field)["7"] is None
    assert f"`{column}` of 8 films was not understood" in said and f"{written!r}" in said


def test_ages_above_120_are_nothing_and_counted(root: Path) -> None:
    data, said = prepared(changed(root, {3: {"age": "411"}, 4: {"age": "121Y"}, 5: {"age": "120"}}))
    ages = all_of(data, "ages")
    assert (ages["3"], ages["4"], ages["5"]) == (None, None, 120) and "2 films" in said and "120" in said


def test_options_with_nothing_to_act_on_are_refused(root: Path) -> None:
    changed(root, {n: {"view": "?"} for n in range(NUM_FILMS)})
    assert "`--view-in-prompt` must have views to name" in refused(root, "--view-in-prompt")
    assert "`--bits`" in refused(root, "--bits", "12")


def test_captions_without_a_view_are_counted(root: Path) -> None:
    _, said = prepared(changed(root, {n: {"view": ""} for n in range(9)}), "--view-in-prompt")
    assert "9 of 120 captions name no view" in said


# 5. Rows


@pytest.mark.parametrize("row", ["images/4.png,3,24", "images/4.png,3,24,F,PA,Edema,more", "images/4.png"])
def test_rows_of_another_length_are_refused(root: Path, row: str) -> None:
    write_table(root, film_rows())
    lines = (root / "metadata.csv").read_text().splitlines()
    lines[5] = row
    (root / "metadata.csv").write_text("\n".join(lines))
    message = refused(root)
    assert "must have 6 values in every row" in message and "line 6 of metadata.csv" in message


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marked_encodings_are_read(root: Path, encoding: str) -> None:
    write_table(root, film_rows())
    (root / "metadata.csv").write_text((root / "metadata.csv").read_text(), encoding=encoding)
    assert sum(prepared(root)[0].num_samples.values()) == NUM_FILMS


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16-le", "cp1252"])
def test_other_encodings_are_refused_with_file_and_line(root: Path, encoding: str) -> None:
    changed(root, {6: {"patient_id": "Müller"}})
    (root / "metadata.csv").write_text((root / "metadata.csv").read_text(), encoding=encoding)
    message = refused(root)
    assert "metadata.csv" in message and "UTF-8" in message and "line" in message


def test_films_of_one_name_in_two_folders_are_told_apart(root: Path) -> None:
    (root / "more").mkdir()
    save_film(root / "more" / "9.png", 999)
    data, _ = prepared(write_table(root, [*film_rows(), ["more/9.png", "5", "40", "F", "PA", "Edema"]]))
    ids = set(all_of(data, "ages"))
    assert {"images/9.png", "more/9.png", "8"} <= ids and "9" not in ids


@pytest.mark.parametrize(
    "again", ["images/3.png", "./images/3.png", "images//3.png", "images\\3.png", "{root}/images/3.png"]
)
def test_a_film_with_two_rows_is_refused(root: Path, again: str) -> None:
    row = [again.format(root=root), *film_rows()[3][1:]]
    message = refused(write_table(root, [*film_rows(), row]))
    assert "`file` must name each film once" in message and "3.png" in message and "line 122" in message


def test_rows_of_nothing_are_no_rows(root: Path) -> None:
    data, _ = prepared(write_table(root, [*film_rows(), [""] * 6, [" "], []]))
    assert sum(data.num_samples.values()) == NUM_FILMS


def test_an_open_quote_does_not_swallow_rows(root: Path) -> None:
    write_table(root, film_rows())
    text = (root / "metadata.csv").read_text()
    (root / "metadata.csv").write_text(text.replace("images/7.png,", 'images/7.png,"', 1))
    assert "metadata.csv" in refused(root)


def test_a_column_named_twice_is_refused(root: Path) -> None:
    write_table(root, [[*row, "Edema"] for row in film_rows()], [*HEADER, "labels"])
    assert "labels" in (message := refused(root)) and "once" in message


def test_checking_lists_all_problems_in_one_pass(root: Path) -> None:
    changed(root, {3: {"patient_id": ""}, 5: {"labels": "nan"}, 9: {"file": "images/none.png"}})
    replace_film(root, 20, Image.new("L", (64, 64)))
    (root / "images" / "21.png").unlink()
    (root / "images" / "21.png").write_bytes(b"broken")
    before = sorted(root.parent.iterdir())
    result = CliRunner().invoke(app, ["nih_cxr14", "--root", str(root), "--check"])
    flat = " ".join(result.output.split())
    assert result.exit_code == 1 and "5 problems" in flat
    for place in ("line 5", "line 7", "line 11", "images/20.png", "images/21.png"):
        assert place in flat
    assert sorted(root.parent.iterdir()) == before


def test_a_collection_without_problems_passes_the_check(root: Path) -> None:
    write_table(root, film_rows())
    result = CliRunner().invoke(app, ["nih_cxr14", "--root", str(root), "--check"])
    assert result.exit_code == 0 and "no problem" in result.output


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not beside the repository")
@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("blank_patient_id", "`patient_id` must name the patient of every film"),
        ("short_row", "must have 6 values in every row"),
        ("case_labels", None),
        ("comma_labels", None),
    ],
)
def test_the_shared_tables(tmp_path: Path, case: str, message: str | None) -> None:
    root = tmp_path / "raw"
    root.mkdir()
    (root / "images").symlink_to(REAL / "images")
    (root / "metadata.csv").write_bytes((CASES / f"{case}.csv").read_bytes())
    if message is not None:
        assert message in refused(root)
    else:
        data, _ = prepared(root, "--condition", "no finding")
        table = pandas.read_csv(CASES / f"{case}.csv")["labels"].str.lower().str.split(r"[|,] *", regex=True)
        expected = {("pleural " * (name == "effusion") + name): n for name, n in table.explode().value_counts().items()}
        assert {name.lower(): n for name, n in counts(data).items()} == {
            name.replace("_", " "): n for name, n in expected.items()
        }


# 10. Captions beyond the tokenizer's length


@pytest.mark.parametrize("option", ["--to", "--check"])
def test_captions_that_are_cut_are_said(root: Path, option: str) -> None:
    long = "|".join(f"a very long name of a finding number {n} that goes on and on" for n in range(8))
    changed(root, {n: {"labels": f"{long}|a last one {n}"} for n in range(14)})
    result = prepare(root, *([option] if option == "--check" else []))
    output = " ".join(result.output.split())
    assert result.exit_code == 0 and "14 captions of 120 are longer than the 77 tokens" in output
    assert "of 14 different ones 1 text is left" in output
