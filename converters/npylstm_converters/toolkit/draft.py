"""A model under construction whose layers follow one another, with the ledger of its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import npylstm
from npylstm import ModelSpec
from npylstm.arrays import Array
from npylstm.graph.builder import GraphBuilder
from npylstm.ops.base import Operation
from npylstm.ops.shapes import BATCH, STEPS
from npylstm.spec import Case, LayerSpec, TensorSpec
from npylstm_converters.toolkit.ledger import Entry

__all__ = ["Draft"]


class Draft:
    """A model whose layers follow one another.

    Attributes
    ----------
    builder
        The graph; made by :meth:`start`.
    last
        Name of the current output.
    ledger
        What became of the tensors of the source.
    decisions
        Sentences about how the source was read.
    about
        What else goes into the provenance, such as ``sample_rate``.
    case
        Inputs and outputs that the source itself holds.
    """

    def __init__(self) -> None:
        self.builder = GraphBuilder()
        self.last = ""
        self.ledger: list[Entry] = []
        self.decisions: list[str] = []
        self.about: dict[str, Any] = {}
        self.case: tuple[Array, Array] | None = None

    def start(self, input: TensorSpec) -> None:
        """Begin with an input."""
        self.builder = GraphBuilder([input])
        self.last = input.name

    @property
    def features(self) -> int:
        """Size of the last axis of the current output."""
        size = self.builder.shapes[self.last][-1]
        assert isinstance(size, int)
        return size

    def add(
        self,
        name: str,
        operation: Operation,
        weights: Mapping[str, Array] | None = None,
        others: Sequence[str] = (),
        sources: Mapping[str, tuple[Sequence[int], Sequence[str]]] | None = None,
    ) -> LayerSpec:
        """Append a layer.

        Parameters
        ----------
        name, operation, weights
            The layer.
        others
            Tensors that it reads beside the current output.
        sources
            Tensors of the source by name: their shapes, and the weights that they became.

        Returns
        -------
        LayerSpec
        """
        self.last = self.builder.add(name, operation, [self.last, *others], weights)[0]
        layer = self.builder.layers[self.builder.edges[-1].layer]
        for source, (shape, became) in (sources or {}).items():
            self.note(source, shape, layer.name, became)
        return layer

    def note(self, source: str, shape: Sequence[int], layer: str, became: Sequence[str]) -> None:
        """Add a tensor of the source to the ledger, with the weights that it became."""
        self.ledger.append(Entry(source, tuple(shape), layer, tuple(became)))

    def stand_in(self, features: int) -> None:
        """Continue after a layer that was refused, to find further reasons."""
        self.last = self.builder.unused("refused")
        self.builder.shapes[self.last] = (BATCH, STEPS, features)

    def finish(self, name: str, provenance: Mapping[str, Any]) -> ModelSpec:
        """Return the model; its structure is the source's.

        Parameters
        ----------
        name
            Name of the model.
        provenance
            ``framework``, ``source_format`` and so on.
        """
        builder = self.builder
        outputs = builder.simplify(builder.finish([self.last]))
        spec = ModelSpec(
            layers=tuple(builder.layers.values()), edges=tuple(builder.edges),
            inputs=builder.inputs, outputs=outputs, name=name,
            provenance={
                "framework_version": "", **provenance,
                "converter": f"npylstm {npylstm.__version__}", "decisions": self.decisions,
                "proof": "proven", "stated": [], **self.about,
                "tensors": [entry.to_json() for entry in self.ledger],
            },
        )  # fmt: skip
        if self.case is None:
            return spec
        x, y = self.case
        case = Case({spec.inputs[0].name: x}, {spec.outputs[0]: y}, purpose="author")
        return replace(spec, cases=(case,))
