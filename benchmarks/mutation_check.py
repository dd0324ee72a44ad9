"""How many planted faults the tests catch, and whether those of an earlier commit caught more.

`python -m benchmarks.mutation_check --against COMMIT --results FILE`. Faults of one line are drawn from what both commits have in
common, and planted one at a time in a temporary copy of either. The test files that import the module are run on it, up to the first
failure and without the tests that need Ray. A test that fails must pass without the fault, else it is left out; where too many
are, the fault counts as unproved.
"""

from __future__ import annotations

import ast
import json
import os
import re
import resource
import subprocess
import sys
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Annotated, Any

import pytest
import typer

from benchmarks.faults import Fault, faults_of

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("sweep", "trainables", "analysis")
BY_TABLE = {
    "trainables/strategies/": ("test_low_rank.py", "test_strategies.py"),
    "analysis/metrics/": ("test_metrics.py",),
}
"""Contract suites that reach modules through a table, without importing them."""
DRAWINGS = ("plots.py", "rank_map.py", "rank_history.py")
"""Modules that decide how pictures look, which no test can tell to be wrong."""
STARTS_RAY = re.compile(
    r"^import ray\b|^from ray import|^from sweep[\w.]* import .*\b(ray_runtime|run_sweep)\b", re.MULTILINE
)
RAY = {"ray_address", "ray_cluster", "ray_alone", "small_ray", "local_ray"}
"""Fixtures of the tests, now and before, that start Ray."""
HEAVY = (
    "torch",
    "diffusers",
    "transformers",
    "optuna",
    "pandas",
    "sklearn",
    "matplotlib",
    "mlflow",
    "ray",
    "torchvision",
)
TIMEOUT_S = 3000
"""For a test: more than on a busy machine any takes, which would pass for a failure; a fault may make one endless."""
MOST_BYTES = 8 * 2**30
"""That a process of tests may have of writable memory in its address space: a fault may make one take all that there is."""
MOST_FAILING = 10
"""Tests that fail without the fault, after which no more are tried."""
CAUGHT, SURVIVED, UNPROVED = "caught", "survived", "unproved"


class FirstFailure:
    """A pytest plug-in that leaves out the tests that need Ray and some others, and writes down what fails first.

    Args:
        to: the file for its name.
        without: names of the others.
    """

    def __init__(self, to: Path, without: Sequence[str]) -> None:
        self.to, self.without = to, without

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [
            item
            for item in items
            if not RAY & set(getattr(item, "fixturenames", ())) and _name(item.nodeid) not in self.without
        ]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def _note(self, report: pytest.CollectReport | pytest.TestReport) -> None:
        if report.failed and not self.to.exists():
            self.to.write_text(_name(report.nodeid))


def _name(nodeid: str) -> str:
    """A test's name without the group of tests that it is run with."""
    return nodeid.partition("@")[0]


@dataclass(frozen=True)
class Tree:
    """A copy of a commit.

    Attributes:
        commit: which.
        folder: where it lies.
    """

    commit: str
    folder: Path

    @classmethod
    def at(cls, commit: str, folder: Path) -> Tree:
        """Write a commit's files into a folder."""
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        return cls(commit, folder)

    def modules(self) -> list[str]:
        """Paths of the modules that can be tested without Ray and without looking at pictures."""
        paths = [path for package in PACKAGES for path in sorted((self.folder / package).rglob("*.py"))]
        decides = [path for path in paths if path.name not in DRAWINGS and not STARTS_RAY.search(path.read_text())]
        return [str(path.relative_to(self.folder)) for path in decides]

    @cached_property
    def tests(self) -> dict[str, str]:
        """The text of each test file, by its path; no fault is planted in them."""
        return {
            str(file.relative_to(self.folder)): file.read_text()
            for file in sorted((self.folder / "tests").rglob("test_*.py"))
        }

    def tests_of(self, module: str) -> list[str]:
        """Test files that import a module, then those that import what imports it in its own folder, then the contract suites.

        Of each, those that import few modules are first: they are nearest, quick, and likely to fail.
        """
        defined = {
            str(file.relative_to(self.folder)): defined_in(file) for file in (self.folder / module).parent.glob("*.py")
        }
        users = [
            other
            for other in sorted(defined.keys() - {module})
            if imports((self.folder / other).read_text(), module, defined[module])
        ]
        suites = {file for place, files in BY_TABLE.items() if module.startswith(place) for file in files}

        def distance(text: str) -> int:
            known = [other for other in (module, *users) if imports(text, other, defined[other])]
            return 0 if module in known else 1 if known else 2

        distances = {file: distance(text) for file, text in self.tests.items()}
        files = [file for file in self.tests if distances[file] < 2 or Path(file).name in suites]
        return sorted(files, key=lambda file: (distances[file], breadth(self.tests[file])))


def defined_in(file: Path) -> set[str]:
    """Names of the functions and classes of a module."""
    return {getattr(node, "name", "") for node in ast.parse(file.read_text()).body}


def imports(source: str, module: str, defined: set[str]) -> bool:
    """Whether a file imports a module, or from its package one of the names that the module defines."""
    path = module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    package, _, name = path.rpartition(".")
    names_by_module = imported(source)
    return path in names_by_module or bool(names_by_module.get(package, set()) & {name, *defined})


def breadth(source: str) -> int:
    """How many modules of the project a file imports."""
    return sum(name.startswith(PACKAGES) for name in imported(source))


@cache
def imported(source: str) -> dict[str, set[str]]:
    """The names that a file imports, by the module that it takes them from."""
    names_by_module: dict[str, set[str]] = defaultdict(set)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            names_by_module[str(node.module)] |= {alias.name for alias in node.names}
    return dict(names_by_module)


def main(
    *,
    against: Annotated[str, typer.Option(help="The commit whose tests are compared with those of HEAD.")],
    num_faults: Annotated[int, typer.Option(help="How many faults.")] = 30,
    seed: Annotated[int, typer.Option(help="Which ones.")] = 0,
    first: Annotated[int, typer.Option(help="The first fault to try, from 0 on: a check can be done in pieces.")] = 0,
    last: Annotated[int | None, typer.Option(help="The first fault not to try.")] = None,
    results: Annotated[Path, typer.Option(help="A JSON file for what was found; pieces of one check share it.")],
) -> None:
    """Plant faults in both commits and print which tests caught which.

    What the file holds of the same two commits is not tried again, so that a check that was broken off goes on.

    Example: python -m benchmarks.mutation_check --against HEAD~20 --results faults.json --first 0 --last 10
    """
    with TemporaryDirectory() as folder:
        trees = [
            Tree.at(commit, Path(folder) / str(number) / "tree") for number, commit in enumerate((against, "HEAD"))
        ]
        drawn = draw(shared_faults(*trees), num_faults, Random(seed))
        commits = [written_out(tree.commit) for tree in trees]
        for number, pair in list(enumerate(drawn))[first:last]:
            if outcomes_in(results).get(str(number), {}).get("commits") == commits:
                continue
            outcomes = {name: tried(tree, fault) for name, tree, fault in zip(("old", "new"), trees, pair, strict=True)}
            keep(results, number, {**asdict(pair[1]), **outcomes, "commits": commits})
            typer.echo(f"{number:3d}  old {outcomes['old']:9} new {outcomes['new']:9} {shown(pair[1])}")
    typer.echo(
        summary(
            {number: outcome for number, outcome in outcomes_in(results).items() if outcome.get("commits") == commits}
        )
    )


def written_out(commit: str) -> str:
    """The full name of a commit."""
    command = ["git", "rev-parse", f"{commit}^{{commit}}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def outcomes_in(results: Path) -> dict[str, dict[str, Any]]:
    """What the file holds, by the number of the fault."""
    return dict(json.loads(results.read_text())) if results.is_file() else {}


def shared_faults(old: Tree, new: Tree) -> list[tuple[Fault, Fault]]:
    """Faults that can be planted in both, with a line that is the only one of its kind in its function."""
    moved = renamed(old.commit, new.commit)
    before = {path: _by_change(old, path) for path in old.modules() if old.tests_of(path)}
    pairs = []
    for path in new.modules():
        known = before.get(moved.get(path, path), {})
        now = _by_change(new, path) if known and new.tests_of(path) else {}
        pairs += [(known[change], fault) for change, fault in now.items() if change in known]
    return pairs


def _by_change(tree: Tree, path: str) -> dict[tuple[str, str, str], Fault]:
    by_change: dict[tuple[str, str, str], list[Fault]] = defaultdict(list)
    for fault in faults_of(path, (tree.folder / path).read_text()):
        by_change[fault.change].append(fault)
    return {change: faults[0] for change, faults in by_change.items() if len(faults) == 1}


def renamed(old: str, new: str) -> dict[str, str]:
    """The earlier path of each file that moved between two commits, as git sees it."""
    command = ["git", "diff", "--find-renames=40%", "--diff-filter=R", "--name-status", old, new]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return {after: before for _, before, after in (line.split("\t") for line in lines)}


def draw(pairs: list[tuple[Fault, Fault]], number: int, random: Random) -> list[tuple[Fault, Fault]]:
    """Faults spread over the packages, and within each over its modules."""
    by_module: dict[str, list[tuple[Fault, Fault]]] = defaultdict(list)
    for pair in pairs:
        by_module[pair[1].module].append(pair)
    chosen = [_one_a_module(package, by_module, random) for package in PACKAGES]
    drawn = [next(rest) for _ in range(number) for rest in chosen]
    return drawn[:number]


def _one_a_module(
    package: str, by_module: dict[str, list[tuple[Fault, Fault]]], random: Random
) -> Iterator[tuple[Fault, Fault]]:
    modules = sorted(module for module in by_module if module.startswith(f"{package}/"))
    random.shuffle(modules)
    orders = [random.sample(by_module[module], len(by_module[module])) for module in modules]
    for turn in range(max(map(len, orders))):
        yield from (order[turn] for order in orders if turn < len(order))


def tried(tree: Tree, fault: Fault) -> str:
    """Whether a test fails that passes without the fault; those that fail in any case are left out."""
    file = tree.folder / fault.module
    sound, failing = file.read_text(), list[str]()
    while len(failing) < MOST_FAILING:
        file.write_text(fault.planted(sound))
        try:
            failed = first_failure(tree, tree.tests_of(fault.module), without=failing)
        finally:
            file.write_text(sound)
        if failed is None:
            return SURVIVED
        if not failed:
            break
        if first_failure(tree, [failed]) is None:
            return CAUGHT
        failing.append(failed)
    return UNPROVED


def first_failure(tree: Tree, tests: list[str], *, without: Sequence[str] = ()) -> str | None:
    """Run tests in a fork of this process, which has imported what takes long.

    Args:
        tree: whose tests they are.
        tests: files, or names of tests.
        without: tests or files that are left out.

    Returns:
        The first test or file that fails, empty where none could be run, or None where all pass.
    """
    for name in HEAVY:
        __import__(name)
    note = tree.folder.parent / "failed"
    note.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        os._exit(_run_tests(tree, [test for test in tests if test not in without], FirstFailure(note, without)))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == pytest.ExitCode.OK:
        return None
    return note.read_text() if note.exists() else ""


def _run_tests(tree: Tree, tests: list[str], plugin: FirstFailure) -> int:
    os.chdir(tree.folder)
    os.environ |= {"PYTHONPATH": str(tree.folder), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.path[:] = [str(tree.folder), *(path for path in sys.path if path not in ("", str(ROOT)))]
    sys.modules["__main__"] = ModuleType("__main__")  # spawned processes would import this file, which a tree may lack
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    sys.dont_write_bytecode = True  # two faults of a line in the same second would pass for one
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    if any(not Path(str(find_spec(name).origin)).is_relative_to(tree.folder) for name in PACKAGES):  # type: ignore[union-attr]
        return int(pytest.ExitCode.USAGE_ERROR)
    options = ["-x", "-q", "-p", "no:cacheprovider", f"--timeout={TIMEOUT_S}"]
    return int(pytest.main([*options, *tests], plugins=[plugin]))


def keep(results: Path, number: int, outcome: dict[str, Any]) -> None:
    """Add a fault's outcome to the file."""
    results.write_text(json.dumps({**outcomes_in(results), str(number): outcome}, indent=1))


def shown(fault: Fault) -> str:
    """A fault in a line."""
    return f"{fault.module}:{fault.line_number}  {fault.line.strip()}  ->  {fault.faulty.strip()}"


def summary(outcomes: dict[str, dict[str, Any]]) -> str:
    """How many of the faults each commit's tests caught."""
    old, new = (sum(outcome[name] == CAUGHT for outcome in outcomes.values()) for name in ("old", "new"))
    return f"Of {len(outcomes)} faults the old tests catch {old}, the new {new}."


if __name__ == "__main__":
    typer.run(main)
