"""The house: which module may import which, and what may not come back."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import npylstm

PACKAGES = {"npylstm": "npylstm", "npylstm_converters": "converters/npylstm_converters"}


def modules(root: Path) -> dict[str, Path]:
    """All modules of both packages by their dotted names."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in (root / folder).rglob("*.py"):
            parts = path.relative_to(root / folder).with_suffix("").parts
            name = ".".join((package, *(p for p in parts if p != "__init__")))
            found[name] = path
    return found


def imported(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    """Module-level imports, without those that only type checkers follow."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)


def dependencies(root: Path) -> dict[str, set[str]]:
    known = modules(root)
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        graph[name] = set()
        for module, names in imported(ast.parse(path.read_text(encoding="utf-8"))):
            targets = {f"{module}.{n}" for n in names} & known.keys() or {module}
            graph[name] |= targets & known.keys()
    return graph


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules of one cycle, or nothing."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        for target in sorted(graph[name]):
            found = visit(target, [*path, name])
            if found:
                return found
        done.add(name)
        return []

    for name in sorted(graph):
        found = visit(name, [])
        if found:
            return found
    return []


def test_no_module_imports_itself_through_others(root: Path) -> None:
    assert cycle(dependencies(root)) == []


def test_that_a_cycle_is_found() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c"]


def test_the_runtime_does_not_import_the_converters(root: Path) -> None:
    graph = dependencies(root)
    assert not [n for n in graph if n.split(".")[0] == "npylstm" and any(
        t.startswith("npylstm_converters") for t in graph[n]
    )]  # fmt: skip


def test_every_public_name_is_there() -> None:
    for name in npylstm.__all__:
        assert getattr(npylstm, name) is not None
    converters = importlib.import_module("npylstm_converters")
    for name in converters.__all__:
        assert getattr(converters, name) is not None


def operation_classes(root: Path) -> set[str]:
    """Names of all classes that derive from Operation, found without running anything."""
    parents = {
        node.name: {ast.unparse(base) for base in node.bases}
        for path in (root / "npylstm/ops").glob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
    found = {"Operation"}
    while more := {name for name, bases in parents.items() if bases & found} - found:
        found |= more
    return found


def class_tests(tree: ast.Module, classes: set[str]) -> Iterator[int]:
    """Lines that ask whether something is one of these classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
            asked = node.args[1]
        elif isinstance(node, ast.MatchClass):
            asked = node.cls
        elif isinstance(node, ast.Compare) and "type(" in ast.unparse(node.left):
            asked = node.comparators[0]
        else:
            continue
        names = {part.id for part in ast.walk(asked) if isinstance(part, ast.Name)}
        if names & classes:
            yield asked.lineno


def test_only_operations_and_kernels_know_classes_of_operations(root: Path) -> None:
    classes = operation_classes(root)
    assert {"LSTM", "Bidirectional", "Dense", "Masking"} <= classes
    found = [
        f"{name}:{line}"
        for name, path in modules(root).items()
        if not name.startswith(("npylstm.ops.", "npylstm.kernels."))
        for line in class_tests(ast.parse(path.read_text(encoding="utf-8")), classes)
    ]
    assert found == []


def test_that_questions_for_a_class_are_found() -> None:
    code = (
        "isinstance(a, (int, Dense))\ntype(a) is Dense\nmatch a:\n case Dense():\n  pass\nDense()"
    )
    assert [*class_tests(ast.parse(code), {"Dense"})] == [1, 2, 4]


def test_files_are_short_enough_to_read(root: Path) -> None:
    longest = {name: len(p.read_text("utf-8").splitlines()) for name, p in modules(root).items()}
    assert {name: lines for name, lines in longest.items() if lines > 400} == {}
