"""Importers come by entry points, ours and those of third parties."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
from builders import make_chain
from npylstm_converters import registry

from npylstm import FormatError, ModelSpec, NpylstmError
from npylstm.ops.dense import Dense


class Toy(nc.Importer):
    """An importer for files that begin with TOY."""

    name = "toy"

    def accepts(self, source: Any, head: bytes) -> bool:
        return head.startswith(b"TOY")

    def convert(self, source: Any, **options: Any) -> ModelSpec:
        return make_chain(Dense(3, 2), shape=("batch", 3))

    def runner(self, source: Any, spec: ModelSpec, **options: Any) -> Any:
        raise NpylstmError("no toys here")


class Twin(Toy):
    name = "keras"


TOY, TWIN = Toy(), Twin()


def with_entry(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Add an entry point as another distribution would."""
    real = registry.entry_points
    entry = EntryPoint(name="other", value=f"{__name__}:{name}", group=registry.GROUP)
    monkeypatch.setattr(
        EntryPoint, "load", lambda self: globals()[name] if self.name == "other" else load(self)
    )
    monkeypatch.setattr(registry, "entry_points", lambda group: [*real(group=group), entry])


load = EntryPoint.load


def test_keras_is_registered() -> None:
    assert "keras" in [importer.name for importer in registry.importers()]


def test_a_third_party_adds_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "a.toy"
    path.write_bytes(b"TOY")
    with pytest.raises(
        FormatError, match=r"a\.toy: no importer knows this kind of source; known are: .*keras"
    ):
        nc.convert(path)
    with_entry(monkeypatch, "TOY")
    assert nc.convert(path).layers[0].kind == "dense"


def test_two_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with_entry(monkeypatch, "TWIN")
    with pytest.raises(NpylstmError, match=r"importer .keras.: registered twice"):
        registry.importers()


def test_no_importers_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: [])
    with pytest.raises(
        NpylstmError, match=r"no importers in npylstm\.converters: install npylstm with pip"
    ):
        registry.importers()


def test_arrays_are_no_source() -> None:
    with pytest.raises(FormatError, match="ndarray: no importer knows this kind of source"):
        nc.convert(np.zeros(3))


def test_a_broken_importer_is_named_where_it_may_matter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root: Path
) -> None:
    """Other importers go on; where none accepts a source, the reason is there."""
    with_entry(monkeypatch, "NOT_THERE")
    assert nc.convert(root / "models/sine_keras/sine.keras")
    path = tmp_path / "a.toy"
    path.write_bytes(b"TOY")
    with pytest.raises(FormatError, match=r"the importer 'other' .* cannot be loaded: KeyError"):
        nc.convert(path)
