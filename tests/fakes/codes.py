"""The codes of findings, as the source of plans has them: each is to be in a table of tests."""

import ast
from collections.abc import Iterable
from pathlib import Path

import vferry.plan

MAKERS = ("error", "warning", "info", "Refusal")


def codes_of(names: Iterable[str]) -> set[str]:
    """Those that modules of `vferry.plan` can say."""
    trees = (ast.parse((Path(vferry.plan.__path__[0]) / f"{name}.py").read_text()) for name in names)
    return {code for tree in trees for node in ast.walk(tree) for code in _said(node)}


def modules() -> set[str]:
    """The names of all modules of `vferry.plan`."""
    return {path.stem for path in Path(vferry.plan.__path__[0]).glob("*.py")}


def _said(node: ast.AST) -> Iterable[str]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MAKERS and node.args:
        first = node.args[0]
        if isinstance(first, ast.Constant):
            yield str(first.value)
