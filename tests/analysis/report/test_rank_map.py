"""The map of ranks: where layers are drawn, what is written, what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis.report import draw_rank_map
from analysis.report.rank_map import WIDEST, Panel, panels, rank_map
from analysis.studies.rank_history import LAST, Place, RankHistory, place_of, read_ranks

DOWN, UP, TEXT = 4, 4, 12
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")


def sd15_layers() -> list[str]:
    """The 184 linear layers of the U-Net in the order that diffusers has them, up before mid, and 72 of the text encoder."""
    blocks = [(f"down_blocks.{i}", 2, i < 3) for i in range(DOWN)]
    blocks += [(f"up_blocks.{i}", 3, i > 0) for i in range(UP)]
    layers = ["time_embedding.linear_1", "time_embedding.linear_2"]
    for block, size, attends in blocks:
        layers += [layer for i in range(size) if attends for layer in transformer(f"{block}.attentions.{i}")]
        layers += [f"{block}.resnets.{i}.time_emb_proj" for i in range(size)]
    layers += [*transformer("mid_block.attentions.0"), *(f"mid_block.resnets.{i}.time_emb_proj" for i in range(2))]
    names = [f"self_attn.{name}" for name in ("k_proj", "v_proj", "q_proj", "out_proj")] + ["mlp.fc1", "mlp.fc2"]
    text = [f"encoder.layers.{i}.{name}" for i in range(TEXT) for name in names]
    return [f"unet.{layer}" for layer in layers] + [f"text_encoder.{layer}" for layer in text]


def transformer(path: str) -> list[str]:
    attention = [f"{name}.{layer}" for name in ("attn1", "attn2") for layer in PROJECTIONS]
    return [f"{path}.transformer_blocks.0.{layer}" for layer in [*attention, "ff.net.0.proj", "ff.net.2"]]


def history_of(layers: list[str]) -> RankHistory:
    """Ranks that tell layers apart, after a start at 1."""
    final = 1 + np.arange(len(layers))
    return RankHistory(layers=tuple(layers), steps=(0, 41, 60), ranks=np.stack([np.ones_like(final), final, final]))


@pytest.fixture(scope="module")
def both_panels() -> tuple[Panel, Panel]:
    unet, text = panels(history_of(sd15_layers()))
    return unet, text


def test_every_layer_has_a_cell_of_its_own_with_its_rank(both_panels: tuple[Panel, Panel]) -> None:
    assert [(panel.part, len(panel.cells)) for panel in both_panels] == [("unet", 184), ("text_encoder", 72)]
    ranks = [rank for panel in both_panels for rank in panel.cells.values()]
    assert sorted(ranks) == list(range(1, 257))


def test_columns_are_in_the_networks_order_and_rows_by_kind(both_panels: tuple[Panel, Panel]) -> None:
    unet, text = both_panels
    blocks = list(dict.fromkeys(block for block, _ in unet.columns))
    assert blocks == [("in", 0), *(("down", i) for i in range(4)), ("mid", 0), *(("up", i) for i in range(4))]
    assert [row for row in unet.rows if row[0] != "other"] == [
        *(("self-attention", name) for name in ("q", "k", "v", "out")),
        *(("cross-attention", name) for name in ("q", "k", "v", "out")),
        *(("feed-forward", name) for name in ("in", "out")),
    ]
    assert [place for _, place in text.columns] == list(range(TEXT))
    assert [name for _, name in text.rows] == ["q", "k", "v", "out", "in", "out"]
    layers = sd15_layers()
    path = "unet.up_blocks.2.attentions.1.transformer_blocks.0.attn2.to_k"
    row, column = unet.rows.index(("cross-attention", "k")), unet.columns.index((("up", 2), 1))
    assert unet.cells[row, column] == 1 + layers.index(path)


@pytest.mark.parametrize(
    ("path", "block", "column", "row"),
    [
        ("unet.conv_in", ("in", 0), 0, ("other", "conv in")),
        ("unet.conv_out", ("out", 0), 0, ("other", "conv out")),
        ("unet.time_embedding.linear_1", ("in", 0), 0, ("other", "time linear 1")),
        ("unet.down_blocks.1.downsamplers.0.conv", ("down", 1), LAST, ("other", "downsampler")),
        ("unet.mid_block.resnets.1.conv2", ("mid", 0), 1, ("other", "conv2")),
        ("unet.mid_block.attentions.0.proj_in", ("mid", 0), 0, ("other", "proj in")),
        ("unet.up_blocks.0.attentions.1.transformer_blocks.1.attn1.to_q", ("up", 0), 1, ("self-attention", "q 2")),
        ("text_encoder.text_model.encoder.layers.11.mlp.fc1", ("layers", 0), 11, ("feed-forward", "in")),
    ],
)
def test_layers_of_other_kinds_have_places_too(
    path: str, block: tuple[str, int], column: int, row: tuple[str, str]
) -> None:
    assert place_of(path) == Place(part=path.split(".")[0], block=block, column=column, row=row)


@pytest.mark.slow
def test_the_picture_names_all_and_its_cells_say_their_ranks() -> None:
    text = rank_map(history_of(sd15_layers())).decode()
    said = re.findall(r"<!-- (.*?) -->", text)
    assert {"U-Net", "Text encoder", "cross-attention", "down 4", "mid", "up 1", "layers", "mean", "largest"} <= set(
        said
    )
    assert {str(rank) for rank in range(1, 257)} <= set(said)


@pytest.mark.slow
def test_the_picture_is_the_same_whenever_it_is_drawn() -> None:
    assert rank_map(history_of(sd15_layers()[2:22])) == rank_map(history_of(sd15_layers()[2:22]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "layers",
    [sd15_layers(), sd15_layers()[2:22], sd15_layers()[184:], ["unet.conv_in"]],
    ids=["all of it", "two blocks", "the text encoder", "one layer"],
)
def test_maps_of_any_size_are_pictures(layers: list[str], tmp_path: Path) -> None:
    draw_rank_map(history_of(layers), tmp_path / "ranks.png")
    with Image.open(tmp_path / "ranks.png") as picture:
        assert picture.format == "PNG"
        assert 300 < picture.width <= 150 * WIDEST + 1
        assert len(picture.convert("RGB").getcolors(picture.width * picture.height)) > 20


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "{}", '{"layers": ["a"], "steps": [0], "ranks": [[1, 2]]}', '{"layers": [], "steps": [], "ranks": []}'],
)
def test_a_damaged_file_is_answered(content: str, tmp_path: Path) -> None:
    (tmp_path / "ranks.json").write_text(content)
    with pytest.raises(ValueError, match=r"`ranks.json` must hold layers, steps and a rank for each, but got"):
        read_ranks(tmp_path / "ranks.json")


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    document = {"layers": ["unet.a", "unet.b"], "steps": [0, 41], "ranks": [[1, 1], [1, 2]]}
    (tmp_path / "ranks.json").write_text(json.dumps(document))
    history = read_ranks(tmp_path / "ranks.json")
    assert history.layers == ("unet.a", "unet.b") and history.steps == (0, 41)
    assert history.ranks.tolist() == document["ranks"]
