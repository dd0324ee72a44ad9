"""What newcomers read: every field says what it is, three arguments have their `Args`, and results have nouns for names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("sweep", "trainables", "search_spaces", "analysis")
NO_NOUNS: Final = frozenset({"found", "held", "one", "own"})
RECORDS: Final = frozenset({"BaseModel", "NamedTuple"})
"""Bases whose annotated names are fields."""
ELSEWHERE: Final = frozenset({"BaseSampler", "Searcher", "TrialScheduler", "tune.Callback"})
"""Classes of Optuna and Ray, which say themselves what the methods that they call take."""
COMMANDS: Final = "main"
"""Functions that typer calls: their options carry help."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def trees(folder: str) -> dict[str, ast.Module]:
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in sorted((ROOT / folder).rglob("*.py"))}


@cache
def classes() -> dict[str, ast.ClassDef]:
    """All classes by name."""
    statements = [node for package in PACKAGES for tree in trees(package).values() for node in tree.body]
    return {node.name: node for node in statements if isinstance(node, ast.ClassDef)}


def bases(node: ast.ClassDef) -> Iterator[str]:
    """The names of all classes that it inherits, in the project and just beyond."""
    for base in node.bases:
        name = ast.unparse(base)
        yield name
        if name in classes():
            yield from bases(classes()[name])


def named(node: ast.ClassDef | Function, section: str) -> dict[str, str]:
    """What a section of the docstring names, with the first line of what it says."""
    _, _, text = (ast.get_docstring(node) or "").partition(f"{section}:\n")
    entries = re.findall(r"^ {4}([\w, *]+): (.*)$", text.split("\n\n")[0], re.MULTILINE)
    return {name.strip(" *"): line for names, line in entries for name in names.split(",")}


def text_of(node: ast.stmt | None) -> str:
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return node.value.value if is_text else ""


def says_more(name: str, text: str) -> bool:
    """Whether a text has words that are not the name's own."""
    return bool(set(re.findall(r"\w+", text.lower())) - {*name.split("_"), "a", "an", "its", "of", "the"})


def silent_fields(node: ast.ClassDef) -> list[str]:
    """Fields of a record that neither `Attributes` names nor a text below them explains."""
    decorators = {ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list}
    if "dataclass" not in decorators and not RECORDS & set(bases(node)):
        return []
    above, below = named(node, "Attributes"), dict(zip(node.body, [*node.body[1:], None], strict=True))
    return [
        field.target.id
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if not field.target.id.startswith("_") and "ClassVar" not in ast.unparse(field.annotation)
        if not says_more(field.target.id, above.get(field.target.id) or text_of(below[field]))
    ]


def public(tree: ast.Module) -> Iterator[tuple[ast.ClassDef | None, ast.ClassDef | Function]]:
    """Public classes, functions and methods, with the class of a method."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
            yield None, node
            for inner in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(inner, Function) and not inner.name.startswith("_"):
                    assert isinstance(node, ast.ClassDef)
                    yield node, inner


def silent_arguments(function: Function, owner: ast.ClassDef | None) -> list[str]:
    """Arguments that `Args` does not name, of three or more; of a hook, its base class says what it takes."""
    arguments = function.args
    plain = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    is_bound = owner is not None and "staticmethod" not in map(ast.unparse, function.decorator_list)
    names = [*plain[is_bound:], *(rest.arg for rest in (arguments.vararg, arguments.kwarg) if rest)]
    if len(names) < 3 or function.name == COMMANDS or (owner is not None and overrides(function, owner)):
        return []
    return [name for name in names if name not in named(function, "Args")]


def overrides(function: Function, owner: ast.ClassDef) -> bool:
    inherited = set(bases(owner))
    known = [classes()[name] for name in inherited if name in classes()]
    return bool(ELSEWHERE & inherited) or any(
        isinstance(node, Function) and node.name == function.name for base in known for node in base.body
    )


def bound(tree: ast.Module) -> Iterator[str]:
    """Names of variables, arguments, functions and classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.ClassDef | Function):
            yield node.name


EXAMPLE = '''
@dataclass(frozen=True)
class Film:
    """A film.

    Attributes:
        side_px: of the film.
        num_views: its num views.
    """

    side_px: int
    num_views: int
    seed: int
    """Draws the film."""
    grain: float

    def scaled(self, factor: float, *, width: int, height: int) -> None:
        """Scale it.

        Args:
            factor: above 0.
            width, height: in pixels.
        """
        one = factor

    def moved(self, left: int, *more: int, **options: int) -> None:
        """Move it.

        Raises:
            ValueError: it is gone.
        """
'''


def test_what_is_silent_is_seen() -> None:
    tree = ast.parse(EXAMPLE)
    film, scaled, moved = (node for _, node in public(tree))
    assert isinstance(film, ast.ClassDef) and isinstance(scaled, Function) and isinstance(moved, Function)
    assert silent_fields(film) == ["num_views", "grain"]
    assert silent_arguments(scaled, film) == [] and silent_arguments(moved, film) == ["left", "more", "options"]
    assert NO_NOUNS & set(bound(tree)) == {"one"}


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_field_says_what_it_is(package: str) -> None:
    records = {
        f"{path}:{node.name}": silent_fields(node)
        for path, tree in trees(package).items()
        for _, node in public(tree)
        if isinstance(node, ast.ClassDef)
    }
    assert {record: fields for record, fields in records.items() if fields} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_three_arguments_have_their_args(package: str) -> None:
    functions = {
        f"{path}:{node.lineno}:{node.name}": silent_arguments(node, owner)
        for path, tree in trees(package).items()
        for owner, node in public(tree)
        if isinstance(node, Function)
    }
    assert {function: arguments for function, arguments in functions.items() if arguments} == {}


@pytest.mark.slow
@pytest.mark.parametrize("folder", [*PACKAGES, "benchmarks", "scripts", "tests"])
def test_names_are_nouns(folder: str) -> None:
    names = {path: sorted(NO_NOUNS & set(bound(tree))) for path, tree in trees(folder).items()}
    assert {path: vague for path, vague in names.items() if vague} == {}
