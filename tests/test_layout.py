"""The measures that keep the tree readable, and no import circle between modules."""

from __future__ import annotations

import ast
import graphlib
import statistics
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("sweep", "trainables", "search_spaces", "analysis")
MAX_LOOSE = {"sweep": 15, "analysis": 6}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Function):
            yield node


def num_lines(function: Function) -> int:
    """Lines of a function with its signature, without decorators and docstring."""
    documented = ast.get_docstring(function, clean=False) is not None
    first = function.body[0]
    docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def test_lines_are_counted_without_the_docstring() -> None:
    (function,) = ast.parse('def f(a):\n    """One.\n\n    Two.\n    """\n    b = a\n    return b\n').body
    assert isinstance(function, ast.FunctionDef)
    assert num_lines(function) == 3


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_functions_are_small(package: str) -> None:
    lengths = {
        f"{path}:{function.lineno}:{function.name}": num_lines(function)
        for path in sources(package)
        for function in functions(path)
    }
    assert statistics.median(lengths.values()) <= 6
    assert {name: length for name, length in lengths.items() if length > 40} == {}


def test_files_are_readable_at_one_sitting() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources(*PACKAGES, "tests")}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


@pytest.mark.parametrize("package", MAX_LOOSE)
def test_rooms_hold_what_belongs_together(package: str) -> None:
    assert len(list((ROOT / package).glob("*.py"))) <= MAX_LOOSE[package]


def test_the_formatter_is_rarely_overruled() -> None:
    mark = "# fmt: " + "skip"
    assert sum(path.read_text().count(mark) for path in sources(*PACKAGES, "benchmarks", "tests")) <= 20


def test_no_module_imports_itself_by_a_detour() -> None:
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True)
    imported = {name: sorted(graph.find_modules_directly_imported_by(name)) for name in graph.modules}
    with pytest.raises(graphlib.CycleError):
        tuple(graphlib.TopologicalSorter({**imported, "one": ["two"], "two": ["one"]}).static_order())
    order = tuple(graphlib.TopologicalSorter(imported).static_order())
    assert order.index("sweep.config") < order.index("sweep.presets")
