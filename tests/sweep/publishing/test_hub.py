"""Pushing to the hub, against a local stand-in of its API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_stand_in import TOKEN, Hub, stand_in
from huggingface_hub import constants

from sweep.publishing.hub import expect_target, push


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with stand_in() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "edema.safetensors").write_bytes(b"\x00\x01")
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n\n# Films\n")
    return tmp_path


@pytest.mark.parametrize("public", [False, True])
def test_an_export_arrives_whole_and_private_unless_said_otherwise(hub: Hub, folder: Path, public: bool) -> None:
    expect_target("owner/films")
    assert push(folder, "owner/films", public=public) == f"{hub.endpoint}/owner/films"
    assert hub.repositories == {"owner/films": not public}
    assert hub.files == {
        "README.md": (folder / "README.md").read_bytes(),
        "tokens/edema.safetensors": b"\x00\x01",
    }


def test_a_repository_that_exists_is_left_alone(hub: Hub) -> None:
    hub.repositories["owner/films"] = True
    with pytest.raises(ValueError, match="must be a new repository, but got 'owner/films', which exists"):
        expect_target("owner/films")


@pytest.mark.parametrize("name", ["films", "owner/films/more", "owner/fi lms", "owner/.."])
def test_a_wrong_name_is_answered(hub: Hub, name: str) -> None:
    with pytest.raises(ValueError, match="`--push-to-hub` must be OWNER/NAME, but got"):
        expect_target(name)


def test_a_hub_without_token_is_answered(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(ValueError, match=r"must have a token of the hub, but got none\. Log in once"):
        expect_target("owner/films")


def test_a_hub_that_refuses_says_that_the_export_is_complete(hub: Hub, folder: Path) -> None:
    hub.refuses = True
    with pytest.raises(OSError, match=r"(?s)must be able to write 'owner/films', but got .*The export is complete"):
        push(folder, "owner/films", public=False)


def test_a_hub_that_is_not_there_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(OSError, match="must be able to write"):
        expect_target("owner/films")
