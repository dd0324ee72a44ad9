"""The model hub: what must be so before anything is exported, and the upload."""

from __future__ import annotations

from pathlib import Path
from typing import Final, cast

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, but not in __all__

FAILURES: Final = cast("tuple[type[Exception], ...]", HfHubHTTPError.__bases__)
"""How a request fails: by errors of whichever HTTP client the library uses, and of the system."""


def expect_target(name: str) -> None:
    """Refuse what cannot be pushed to, before anything slow.

    Raises:
        ValueError: it is no name of a repository, it exists, or no token is known.
        OSError: the hub cannot be reached, or refuses.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(f"`--push-to-hub` must be OWNER/NAME, but got {name!r}: {error}") from error
    if name.count("/") != 1:
        raise ValueError(f"`--push-to-hub` must be OWNER/NAME, but got {name!r}. Put your name on the hub before it.")
    if get_token() is None:
        raise ValueError(
            "`--push-to-hub` must have a token of the hub, but got none. Log in once with `hf auth login`, or set HF_TOKEN."
        )
    try:
        exists = HfApi().repo_exists(name)
    except FAILURES as error:
        raise _unreachable(name, error) from error
    if exists:
        raise ValueError(
            f"`--push-to-hub` must be a new repository, but got {name!r}, which exists. Choose another name."
        )


def push(folder: Path, name: str, *, public: bool) -> str:
    """Upload an export with its card.

    Args:
        folder: what is uploaded.
        name: of a repository that is made.
        public: whether everybody may see it.

    Returns:
        Its address.

    Raises:
        OSError: the hub cannot be reached, or refuses.
    """
    api = HfApi()
    try:
        made = api.create_repo(name, private=not public)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload the adapter and its card")
    except FAILURES as error:
        raise _unreachable(name, error) from error
    return str(made)


def _unreachable(name: str, error: Exception) -> OSError:
    return OSError(
        f"`--push-to-hub` must be able to write {name!r}, but got {type(error).__name__}: {str(error).strip().splitlines()[0]}. "
        "The export is complete where it is; check network and token, then upload it with `hf upload`."
    )
