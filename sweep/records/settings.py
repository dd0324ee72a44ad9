"""How a sweep is recorded, as its configuration says."""

from __future__ import annotations

import os
from typing import Final
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from trainables.settings import Section

SERVERS: Final = ("http://", "https://")
VARIABLE: Final = "MLFLOW_TRACKING_URI"


def _of_environment() -> str | None:
    """The server that the environment names; other kinds of stores are not for a sweep, which has its own."""
    uri = os.environ.get(VARIABLE, "").rstrip("/")
    return _without_password(uri) if uri.startswith(SERVERS) else None


def _without_password(uri: str) -> str:
    """The same address; what it holds stands in `config.json` and the report, so it must hold no secret."""
    if urlsplit(uri).username is not None:
        raise ValueError(
            f"`tracking.uri`, or {VARIABLE}, must be without user and password, but got them. Give them by "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        )
    return uri


class TrackingConfig(Section):
    """Where MLflow's runs are kept.

    Attributes:
        uri: address of an MLflow server, by default what MLFLOW_TRACKING_URI says; None: a store in the run directory.
        system_metrics: whether the load of the machine that runs `sweep.run` is recorded, with the parent run; by default
            it is not, as it says nothing of the other machines.
    """

    uri: str | None = Field(default_factory=_of_environment)
    system_metrics: bool = False

    @field_validator("uri")
    @classmethod
    def _server(cls, uri: str | None) -> str | None:
        if uri is not None and not uri.startswith(SERVERS):
            raise ValueError(
                f"`tracking.uri` must be the http or https address of an MLflow server, but got {uri!r}. Leave it out, and "
                "the run directory has a store of its own."
            )
        return None if uri is None else _without_password(uri.rstrip("/"))
