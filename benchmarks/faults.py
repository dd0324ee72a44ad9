"""One-line faults of Python source, found in its syntax tree: what `benchmarks/mutation_check.py` plants."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.MatMult: ast.Mult,
}
FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any"}
SILENT = (ast.Raise, ast.Assert, ast.JoinedStr, ast.AnnAssign, ast.arguments, ast.Import, ast.ImportFrom)
"""What is left alone, with all in it: words of messages, annotations and declared defaults are not decisions."""


@dataclass(frozen=True)
class Fault:
    """A line of a function that says something else.

    Attributes:
        module: path of the file in the project.
        function: qualified name of the function that the line is in.
        line_number: from 1 on, in the file that the fault was found in.
        line: the sound line as it stands there.
        faulty: what the line becomes.
    """

    module: str
    function: str
    line_number: int
    line: str
    faulty: str

    @property
    def change(self) -> tuple[str, str, str]:
        """What is the same fault wherever the function stands."""
        return self.function, self.line.strip(), self.faulty.strip()

    def planted(self, source: str) -> str:
        """The file's text with the fault in it.

        Raises:
            ValueError: the text is not the one that the fault was found in.
        """
        lines = source.splitlines(keepends=True)
        if lines[self.line_number - 1].rstrip("\n") != self.line:
            present = lines[self.line_number - 1]
            raise ValueError(
                f"`source` must have {self.line!r} in line {self.line_number}, but got {present!r}. Read it anew."
            )
        lines[self.line_number - 1] = self.faulty + "\n"
        return "".join(lines)


def faults_of(module: str, source: str) -> list[Fault]:
    """All faults that can be planted in the functions of a file, in the order of its lines.

    Args:
        module: path of the file in the project.
        source: its text.
    """
    lines = source.splitlines()
    faults = [
        Fault(module, function, node.lineno, lines[node.lineno - 1], _exchanged(lines[node.lineno - 1], node, other))
        for function, body in _functions(ast.parse(source), "")
        for node in _decisions(body)
        if node.lineno == node.end_lineno
        for other in _others(node)
    ]
    return sorted(set(faults), key=lambda fault: (fault.line_number, fault.faulty))


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, list[ast.stmt]]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            yield f"{prefix}{child.name}", child.body
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")


def _decisions(body: list[ast.stmt]) -> Iterator[ast.expr]:
    """Expressions of a function that can be other ones; docstrings and what is told to people are left out."""
    waiting: list[ast.AST] = list(body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, SILENT) or _is_text(node) or _is_look(node):
            continue
        if isinstance(node, ast.expr):
            yield node
        waiting.extend(child for child in ast.iter_child_nodes(node) if not _is_place(node, child))


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_place(node: ast.AST, child: ast.AST) -> bool:
    """Whether a child is what stands in brackets: another number there is mostly out of range, which any test sees."""
    return isinstance(node, ast.Subscript) and child is node.slice


def _is_look(node: ast.AST) -> bool:
    """Whether a node says how a file is laid out, which no reader of it can tell to be wrong."""
    return isinstance(node, ast.keyword) and node.arg == "indent"


def _joins(node: ast.BinOp) -> bool:
    """Whether the operator may stand between strings or parts of a path, where no other has a meaning."""
    names = [each.id for each in (node.left, node.right) if isinstance(each, ast.Name)]
    texts = [each for each in ast.walk(node) if isinstance(each, ast.JoinedStr | ast.Constant)]
    return any(map(str.isupper, names)) or any(
        not isinstance(getattr(text, "value", ""), int | float) for text in texts
    )


def _others(node: ast.expr) -> Iterator[ast.expr]:
    """What may stand in an expression's place: another operator, constant, function or branch."""
    other = copy.deepcopy(node)
    if isinstance(other, ast.Compare) and len(other.ops) == 1:
        other.ops = [COMPARISONS[type(other.ops[0])]()]
    elif isinstance(other, ast.BinOp) and type(other.op) in OPERATORS and not _joins(other):
        other.op = OPERATORS[type(other.op)]()
    elif isinstance(other, ast.BoolOp):
        other.op = ast.And() if isinstance(other.op, ast.Or) else ast.Or()
    elif isinstance(other, ast.IfExp):
        other.body, other.orelse = other.orelse, other.body
    elif isinstance(other, ast.UnaryOp) and isinstance(other.op, ast.Not | ast.USub):
        other = other.operand
    elif isinstance(other, ast.Call) and isinstance(other.func, ast.Name) and other.func.id in FUNCTIONS:
        other.func.id = FUNCTIONS[other.func.id]
    elif isinstance(other, ast.Constant) and isinstance(other.value, bool | int | float):
        other.value = _other_number(other.value)
    else:
        return
    yield other


def _other_number(value: bool | int | float) -> bool | int | float:
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) or value == 0 else 2 * value


def _exchanged(line: str, node: ast.expr, other: ast.expr) -> str:
    """The line with another expression in a node's place; columns of the tree count bytes."""
    raw = line.encode()
    assert node.end_col_offset is not None
    text = ast.unparse(other)
    text = text if isinstance(other, ast.Constant | ast.Call | ast.Name) else f"({text})"
    return (raw[: node.col_offset] + text.encode() + raw[node.end_col_offset :]).decode()
