"""Labels and optional fields as users of such programs have written them: read rightly and said, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from film_folders import NUM_FILMS, film_rows, write_table
from prepare_runs import all_of, changed, counts, prepare, prepared, refused

from trainables.datasets.problems import Ledger
from trainables.datasets.vocabulary import Vocabulary

# 3. Labels


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "written", ["Edema, Effusion", "Edema;Effusion", "Edema ; pleural_effusion", "Effusion\tEdema"]
)
def test_other_separators_are_read_and_that_is_said(root: Path, written: str) -> None:
    changed(root, {n: {"labels": written} for n in range(2, NUM_FILMS, 3)})
    data, said = prepared(root)
    assert counts(data) == {"No Finding": 40, "Pleural Effusion": 80, "Edema": 40}
    assert "40 films" in said and "separat" in said


@pytest.mark.parametrize("written", ["Edema, Effusion|Rickets", "Rickets|Edema, Effusion", "Edema;Effusion|gout|gout"])
def test_films_whose_labels_are_separated_otherwise_are_counted_wherever_it_stands(written: str) -> None:
    ledger, vocabulary = Ledger(), Vocabulary(separator="|")
    assert {"Edema", "Pleural Effusion"} < set(vocabulary.findings(written, pytest.fail))
    vocabulary.report(ledger)
    assert "Labels of 1 film are separated otherwise than by '|' and are read as several." in ledger.said


@pytest.mark.slow
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
    conditions = all_of(data, "conditions")
    assert conditions["0"] == conditions["20"] == ("Edema", "Cardiomegaly")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("label,finding\nPTX\n", "line 2 of map.csv"),
        ("label,finding\nPTX,\n", "line 2 of map.csv"),
        ("label,finding\nPTX,Edema\nptx,Mass\n", "line 3 of map.csv"),
        ("from,to\nPTX,Edema\n", "must have the columns label, finding"),
        ("label,finding\nPTX,Edema\n", "must name a label of the data"),
        (
            "label,finding\nEffusion,Pneumothorx\n",
            "but got 'Pneumothorx', which looks like Pneumothorax in line 2 of map.csv",
        ),
        ("label,finding\nEffusion,nan\n", "but got 'nan', in which 'nan' names nothing in line 2 of map.csv"),
        (
            'label,finding\nEffusion,"Mass, Nodule"\n',
            "which may be several findings in line 2 of map.csv. Separate findings by '|'",
        ),
        ("label,finding\nEffusion,['Mass']\n", "without brackets and quotes"),
        ("label,finding\nEffusion,No Finding|Mass\n", "which contradicts itself in line 2 of map.csv"),
        ("label;finding\nEffusion;Mass\n", "Save it with commas between the columns"),
        ("from,to\nPTX,Edema\n", "Name its columns so"),
    ],
)
def test_label_maps_that_cannot_act_are_refused(root: Path, content: str, message: str) -> None:
    (root.parent / "map.csv").write_text(content)
    assert message in refused(write_table(root, film_rows()), "--label-map", str(root.parent / "map.csv"))


# 4. Optional fields


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "written", "field"),
    [
        ("view", "lateral decubitus", "views"),
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


def test_lateral_films_are_left_out_and_counted(root: Path) -> None:
    """Their captions would be those of frontal films; what else is wrong with their rows does not matter."""
    written = ("LATERAL", "LL", "L", "lat.", "Left lateral", "chest lat", "RL", "Latero-lateral", "L.L.")
    rows = {n: {"view": view, "labels": "nan"} for n, view in enumerate(written)} | {20: {"view": "LL"}}
    data, said = prepared(changed(root, rows))
    assert set(map(str, range(NUM_FILMS))) - set(all_of(data, "views")) == {*map(str, range(9)), "20"}
    assert "10 films are lateral and left out, since only frontal ones are prepared: 'LL' (2)" in said


def test_lateral_films_alone_are_refused(root: Path) -> None:
    message = refused(changed(root, {n: {"view": "LATERAL"} for n in range(NUM_FILMS)}))
    assert "`view` must not be lateral in every row" in message and "'LATERAL' in 120 rows of metadata.csv" in message


def test_ages_above_120_are_nothing_and_counted(root: Path) -> None:
    data, said = prepared(changed(root, {3: {"age": "411"}, 4: {"age": "121Y"}, 5: {"age": "120"}}))
    ages = all_of(data, "ages")
    assert (ages["3"], ages["4"], ages["5"]) == (None, None, 120) and "2 films" in said and "120" in said


def test_options_with_nothing_to_act_on_are_refused(root: Path) -> None:
    changed(root, {n: {"view": "?"} for n in range(NUM_FILMS)})
    assert "`--view-in-prompt` must have views to name" in refused(root, "--view-in-prompt")
    assert "`--bits`" in refused(root, "--bits", "12")


@pytest.mark.slow
def test_captions_without_a_view_are_counted(root: Path) -> None:
    _, said = prepared(changed(root, {n: {"view": ""} for n in range(9)}), "--view-in-prompt")
    assert "9 of 120 captions name no view" in said
