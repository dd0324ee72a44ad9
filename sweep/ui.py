"""`python -m sweep.ui`: a run's report, MLflow and optuna-dashboard in the browser."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape

from analysis.run_folder import EVENTS, MLFLOW_STORE, REPORT, STUDY_STORE
from analysis.terminal import explained, new_console
from sweep.config import ConfigError, SweepConfig
from sweep.interrupts import interruptible
from sweep.loading import load_run_config
from sweep.records.owner import owned
from sweep.records.servers import HOST, Server, answers, port_for, started

MLFLOW_PORT, DASHBOARD_PORT = 5000, 8080
LOOK_S: Final = 1.0


def main(
    run: Annotated[Path, typer.Option(help="A run directory, of a sweep that has ended or still goes on.")],
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="MLflow's; default the first free from 5000.")
    ] = None,
    dashboard_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="optuna-dashboard's; default the first free from 8080.")
    ] = None,
) -> None:
    """Show a run in the browser: start MLflow and optuna-dashboard on this machine alone, and print the links.

    Example: python -m sweep.ui --run runs/demo-20261128-120000
    """
    console = new_console()
    with explained(), interruptible():
        folder = run.expanduser().resolve()
        if not (folder / EVENTS).is_file():
            raise ConfigError(
                f"`--run` must be the directory of a run, but got {str(run)!r}, which has no {EVENTS}. Give the directory "
                "that `python -m sweep.run` printed."
            )
        first = port_for("--port", port, MLFLOW_PORT)
        second = port_for("--dashboard-port", dashboard_port, DASHBOARD_PORT, [first])
        show(folder, first, second, console)


def show(out: Path, mlflow_port: int, dashboard_port: int, console: Console) -> None:
    """Start what there is to show, print the links, and wait until told to end.

    Args:
        out: the run directory.
        mlflow_port: port of MLflow on the loopback interface.
        dashboard_port: port of optuna-dashboard, likewise.
        console: where links are printed.

    Raises:
        RuntimeError: a program does not start, or has ended.
    """
    with ExitStack() as stack:
        with console.status("starting MLflow and optuna-dashboard"):
            config = load_run_config(out)
            is_running = _settle(out, config, console)
            servers = [
                stack.enter_context(started(name, arguments, port=port, health=health))
                for name, (arguments, port, health) in _commands(out, mlflow_port, dashboard_port).items()
            ]
            pages = {**_report(out), **_mlflow(out, config, servers), **_dashboard(servers)}
            for server in servers:
                server.wait()
        _print(pages, _notes(out, servers, is_running), console, is_served=bool(servers))
        try:
            _wait(servers)
        except KeyboardInterrupt:  # is how it ends
            raise typer.Exit from None


def _settle(out: Path, config: SweepConfig, console: Console) -> bool:
    """Bring up to date what is shown of a run, unless its sweep does so itself: gives whether that is running.

    What cannot be written, as where the run is somebody else's, is shown as it is.
    """
    try:
        with owned(out):
            from sweep.records.study_store import rebuild_study
            from sweep.records.tracking import settle

            rebuild_study(out, config.reported_objectives())
            settle(out, config)
    except ConfigError:
        return True
    except Exception as error:  # noqa: BLE001  # of the disk, Optuna, SQLAlchemy or MLflow
        _say(f"the run is shown as it is, as it could not be brought up to date: {error}", console)
    return False


def _commands(out: Path, mlflow_port: int, dashboard_port: int) -> Mapping[str, tuple[Sequence[str], int, str]]:
    """What to start, by name: the arguments for Python, the port, and the path that answers."""
    from sweep.records.tracking import place_of, quieten

    commands: dict[str, tuple[Sequence[str], int, str]] = {}
    if place_of(out).server is None and (out / MLFLOW_STORE).is_file():
        quieten()
        store = ["--backend-store-uri", place_of(out).uri, "--host", HOST, "--port", str(mlflow_port), "--workers", "1"]
        commands["MLflow"] = (["-m", "mlflow", "server", *store], mlflow_port, "/health")
    if find_spec("optuna_dashboard") is not None and (out / STUDY_STORE).is_file():
        from sweep.records.study_store import sqlite_address

        study = [sqlite_address(out / STUDY_STORE), "--host", HOST, "--port", str(dashboard_port)]
        command = ["-c", "from optuna_dashboard._cli import main; main()", *study]
        commands["optuna-dashboard"] = (command, dashboard_port, "/dashboard")
    return commands


def _report(out: Path) -> dict[str, str]:
    return {"Report": (out / REPORT).as_uri()} if (out / REPORT).is_file() else {}


def _mlflow(out: Path, config: SweepConfig, servers: Sequence[Server]) -> dict[str, str]:
    """The pages of the run, on its own server or the one just started."""
    from sweep.records.tracking import links_of, place_of

    place = place_of(out)
    address = place.server or next((server.address for server in servers if server.name == "MLflow"), None)
    if address is None or (place.server is not None and not answers(f"{address}/health")):
        return {}
    links = links_of(place, config.preset)
    if links is None:
        return {}
    pages = {"Front": links.front, "Compare": links.compare, "Trials": links.trials}
    return {name: f"{address}/{page}" for name, page in pages.items() if page is not None}


def _dashboard(servers: Sequence[Server]) -> dict[str, str]:
    address = next((server.address for server in servers if server.name == "optuna-dashboard"), None)
    return {} if address is None else {"Study": f"{address}/dashboard/studies/1"}


def _notes(out: Path, servers: Sequence[Server], is_running: bool) -> list[str]:
    """What is not shown, and why."""
    from sweep.records.tracking import place_of

    names, uri, has_dashboard = (
        {server.name for server in servers},
        place_of(out).server,
        find_spec("optuna_dashboard") is not None,
    )
    how = f"python -m sweep.run --resume {shlex.quote(str(out))}"
    later = (
        "comes with the first trial that ends" if is_running else f"is not there: the sweep broke off. {how} goes on"
    )
    notes = [
        (not (out / REPORT).is_file(), f"the report {later}."),
        (uri is None and "MLflow" not in names, f"MLflow's store {later}."),
        (
            uri is not None and not answers(f"{uri}/health"),
            f"the tracking server {uri} does not answer; its links are left out.",
        ),
        (not has_dashboard, "optuna-dashboard is left out: pip install optuna-dashboard adds it."),
        (
            has_dashboard and "optuna-dashboard" not in names,
            f"optuna-dashboard is left out: there is no {STUDY_STORE}.",
        ),
        (is_running, "the sweep goes on; the pages follow it."),
    ]
    return [note for holds, note in notes if holds]


def _say(note: str, console: Console) -> None:
    console.print(f"[yellow]note[/yellow] {escape(note)}", soft_wrap=True, highlight=False)


def _print(pages: Mapping[str, str], notes: Sequence[str], console: Console, *, is_served: bool) -> None:
    for note in notes:
        _say(note, console)
    for name, link in pages.items():
        console.print(f"{name:<9}{link}", soft_wrap=True, highlight=False, markup=False)
    if is_served:
        console.print("Ctrl+C ends it.")


def _wait(servers: Sequence[Server]) -> None:
    """Wait until a signal comes, or a program ends that should not.

    Raises:
        RuntimeError: one has ended.
    """
    while servers:
        for server in servers:
            if server.process.poll() is not None:
                raise RuntimeError(f"`{server.name}` must go on until Ctrl+C, but ended by itself. Start anew.")
        time.sleep(LOOK_S)


if __name__ == "__main__":
    typer.run(main)
