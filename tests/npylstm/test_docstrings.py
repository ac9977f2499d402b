"""The docstrings of the public names: their examples run, and they describe every parameter."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import npylstm_converters
import pytest

import npylstm

PACKAGES = {"npylstm": "npylstm", "npylstm_converters": "converters/npylstm_converters"}


def public() -> Iterator[tuple[str, Any]]:
    """All public functions and classes, and the functions and properties of the classes."""
    for package in (npylstm, npylstm.spec, npylstm.errors, npylstm_converters):
        for name in package.__all__:
            value = getattr(package, name)
            if not callable(value):
                continue
            yield f"{package.__name__}.{name}", value
            for member in dir(value) if inspect.isclass(value) else ():
                found = inspect.getattr_static(value, member)
                if member.startswith("_") or not is_own(value, member):
                    continue
                if isinstance(found, (classmethod, staticmethod)) or inspect.isfunction(found):
                    yield f"{package.__name__}.{name}.{member}", getattr(value, member)
                elif isinstance(found, property) or hasattr(found, "attrname"):
                    yield f"{package.__name__}.{name}.{member}", found


def is_own(kind: type, member: str) -> bool:
    """Whether a member is of npylstm, and not of Exception or tuple."""
    owner = next(k for k in kind.__mro__ if member in vars(k))
    return owner.__module__.startswith("npylstm")


def sections(docstring: str) -> dict[str, list[str]]:
    """The lines of each section that describe something, without indentation."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", inspect.cleandoc(docstring), flags=re.MULTILINE)
    return {
        title: [line for line in text.splitlines() if line and not line.startswith(" ")]
        for title, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def names(lines: list[str]) -> list[str]:
    return [name.strip() for line in lines for name in line.split(" : ")[0].split(",")]


PUBLIC = dict(public())


def parameters(value: Any) -> list[str]:
    """What the docstring has to name."""
    if inspect.isclass(value) and not is_own(value, "__init__"):
        return list(getattr(value, "_fields", ()))
    if getattr(value, "_is_protocol", False):
        return []
    stars = {inspect.Parameter.VAR_KEYWORD: "**", inspect.Parameter.VAR_POSITIONAL: "*"}
    found = inspect.signature(value).parameters.values()
    return [f"{stars.get(p.kind, '')}{p.name}" for p in found if p.name != "self"]


@pytest.mark.parametrize("name", PUBLIC)
def test_the_docstring_describes_parameters_and_result(name: str) -> None:
    value = PUBLIC[name]
    assert value.__doc__, "no docstring"
    if not callable(value):
        return  # a property
    found, expected = sections(value.__doc__), parameters(value)
    if inspect.isclass(value):  # the fields of a result that users do not make are attributes
        described = found.get("Parameters") or (found.get("Attributes", []) if expected else [])
    else:
        described = found.get("Parameters", [])
        if inspect.signature(value).return_annotation != "None":
            assert "Returns" in found or "Yields" in found
    assert names(described) == expected


def test_that_a_missing_section_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def undescribed(x: int) -> int:
        """Return something."""
        return x

    monkeypatch.setitem(PUBLIC, "undescribed", undescribed)
    with pytest.raises(AssertionError):
        test_the_docstring_describes_parameters_and_result("undescribed")


def modules_with_examples(root: Path) -> Iterator[str]:
    for package, folder in PACKAGES.items():
        for path in sorted((root / folder).rglob("*.py")):
            if ">>>" in path.read_text(encoding="utf-8"):
                parts = path.relative_to(root / folder).with_suffix("").parts
                yield ".".join((package, *(p for p in parts if p != "__init__")))


def test_the_examples_give_what_they_show(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    results = {n: doctest.testmod(importlib.import_module(n)) for n in modules_with_examples(root)}
    assert sum(result.attempted for result in results.values()) > 30
    assert not [name for name, result in results.items() if result.failed]
