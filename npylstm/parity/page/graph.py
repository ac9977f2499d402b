"""The model's graph as SVG: a box for every call of a layer, inputs at the top."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from npylstm.ops.shapes import format_shape
from npylstm.parity.page.layout import Layout, layout, longest_paths
from npylstm.parity.page.markup import esc, plural
from npylstm.printable import clipped
from npylstm.spec import ModelSpec

__all__ = ["draw"]

_MOST = 40  # boxes, before layers are drawn in groups
_HEIGHT = 38.0
_CLOSE, _WIDE = 18.0, 34.0  # between ranks: of a chain, of a graph with branches
_MARGIN = 8.0
_NAME, _DETAIL = 7.3, 6.4  # width of a character
_LONGEST_NAME, _LONGEST_DETAIL = 26, 36
_ROLES = ("input", "call", "output")


@dataclass(frozen=True)
class Box:
    """A box: its text, its kind (``input``, ``call`` or ``output``), its layers, and its mark."""

    name: str
    detail: str
    role: str
    layers: tuple[str, ...] = ()
    mark: str = ""

    @property
    def title(self) -> str:
        """Return the first line."""
        return f"✗ {self.name}: {self.mark}" if self.mark else self.name

    @property
    def width(self) -> float:
        """Return the width in pixels."""
        return max(96.0, _NAME * len(self.title), _DETAIL * len(self.detail)) + 22


Edges = list[tuple[int, int]]


def draw(spec: ModelSpec, marks: Mapping[str, str]) -> tuple[str, float, bool]:
    """Draw the graph of a model.

    Parameters
    ----------
    spec
        The model.
    marks
        Layers to mark, with the text of the mark: ``{"lstm": "differs first"}``.

    Returns
    -------
    picture
        SVG in its natural size.
    width
        Of the picture in pixels.
    grouped
        Whether layers are drawn in groups.
    """
    boxes, edges = _boxes(spec, marks)
    plain = len(boxes)
    if len(boxes) > _MOST:
        boxes, edges = _fold_chains(boxes, edges)
    if len(boxes) > _MOST:
        boxes, edges = _fold_ranks(boxes, edges)
    widths = [box.width for box in boxes]
    chain = len(edges) == len(boxes) - 1 == len({a for a, _ in edges}) == len({b for _, b in edges})
    if chain:
        widths = [max(widths)] * len(boxes)
    places = layout(widths, edges)
    between = _CLOSE if chain else _WIDE
    pitch = _HEIGHT + between
    height = (max(places.ranks) + 1) * pitch - between + 2 * _MARGIN
    width = max(places.width + 2 * _MARGIN, 140.0)
    parts = [_edge(route, pitch) for route in places.routes]
    parts += [_box(box, widths[k], places, k, pitch) for k, box in enumerate(boxes)]
    label = f"Graph of {plural(len(spec.layers), 'layer')}: " + ", ".join(
        f"{layer.name} ({layer.kind})" for layer in spec.layers[:12]
    )
    svg = (
        f'<svg class="graph" role="img" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" aria-label="{esc(label, 600)}">'
        f"{''.join(parts)}</svg>"
    )
    return svg, width, len(boxes) < plain


def _boxes(spec: ModelSpec, marks: Mapping[str, str]) -> tuple[list[Box], Edges]:
    """Return one box for every input, call and output, and the edges."""
    kinds = {layer.name: layer.kind for layer in spec.layers}
    calls = Counter(edge.layer for edge in spec.edges)
    boxes: list[Box] = []
    edges: Edges = []
    makers: dict[str, int] = {}

    def add(name: str, detail: str, role: str, layer: str | None = None) -> int:
        name, detail = clipped(name, _LONGEST_NAME), clipped(detail, _LONGEST_DETAIL)
        layers = () if layer is None else (layer,)
        boxes.append(Box(name, detail, role, layers, marks.get(layer or "", "")))
        return len(boxes) - 1

    for tensor in spec.inputs:
        makers[tensor.name] = add(tensor.name, f"input {format_shape(tensor.shape)}", "input")
    for edge in spec.edges:
        shape = format_shape(spec.shapes[edge.outputs[0]])
        shared = "shared " if calls[edge.layer] > 1 else ""
        number = add(edge.name, f"{shared}{kinds[edge.layer]} {shape}", "call", edge.layer)
        edges += [(makers[t], number) for t in dict.fromkeys(edge.inputs)]
        makers |= dict.fromkeys(edge.outputs, number)
    for tensor in spec.output_specs:
        number = add(tensor.name, f"output {format_shape(tensor.shape)}", "output")
        edges.append((makers[tensor.name], number))
    return boxes, sorted(set(edges))


def _fold_chains(boxes: list[Box], edges: Edges) -> tuple[list[Box], Edges]:
    """Merge chains of calls without branches into one box each."""
    readers, sources = Counter(a for a, _ in edges), Counter(b for _, b in edges)
    group = list(range(len(boxes)))
    for a, b in edges:
        inner = readers[a] == 1 and sources[b] == 1
        if inner and boxes[a].role == boxes[b].role == "call":
            group[b] = group[a]
    return _fold(boxes, edges, group)


def _fold_ranks(boxes: list[Box], edges: Edges) -> tuple[list[Box], Edges]:
    """Merge calls of neighbouring ranks into one box, their inputs and outputs into one each."""
    ranks = longest_paths(len(boxes), edges)
    deep = -(-(max(ranks) + 1) // (_MOST // 3))
    keys = [(rank // deep, _ROLES.index(box.role)) for rank, box in zip(ranks, boxes, strict=True)]
    order = sorted(range(len(boxes)), key=keys.__getitem__)
    index = {old: new for new, old in enumerate(order)}
    first: dict[tuple[int, int], int] = {}
    group = [first.setdefault(keys[old], index[old]) for old in order]
    moved = [(index[a], index[b]) for a, b in edges]
    return _fold([boxes[old] for old in order], moved, group)


def _fold(boxes: list[Box], edges: Edges, group: list[int]) -> tuple[list[Box], Edges]:
    """Merge each group of boxes into one; ``group`` is the index of its first box."""
    together: dict[int, list[Box]] = {}
    for box, target in zip(boxes, group, strict=True):
        together.setdefault(target, []).append(box)
    index = {target: k for k, target in enumerate(together)}
    folded = {(index[group[a]], index[group[b]]) for a, b in edges}
    return [_merged(found) for found in together.values()], sorted(e for e in folded if e[0] < e[1])


def _merged(boxes: list[Box]) -> Box:
    first = boxes[0]
    if len(boxes) == 1:
        return first
    span = clipped(f"{first.name} … {boxes[-1].name}", _LONGEST_DETAIL)
    layers = tuple(name for box in boxes for name in box.layers)
    count = plural(len(boxes), "layer" if first.role == "call" else first.role)
    return Box(count, span, first.role, layers, next((b.mark for b in boxes if b.mark), ""))


def _middle(rank: int, pitch: float) -> float:
    return _MARGIN + rank * pitch + _HEIGHT / 2


def _edge(route: Iterable[tuple[float, int]], pitch: float) -> str:
    """Draw an edge as a smooth line through its bends, with a point at its end."""
    points = [(_MARGIN + x, _middle(rank, pitch)) for x, rank in route]
    (x, y), last = points[0], len(points) - 1
    data = f"M{x:.1f} {y + _HEIGHT / 2:.1f}"
    y += _HEIGHT / 2
    for k, (to_x, middle) in enumerate(points[1:], 1):
        top = middle - _HEIGHT / 2 - (4 if k == last else 0)
        half = (y + top) / 2
        data += f"C{x:.1f} {half:.1f} {to_x:.1f} {half:.1f} {to_x:.1f} {top:.1f}"
        x, y = to_x, top
        if k != last:
            y = middle + _HEIGHT / 2
            data += f"V{y:.1f}"
    tip = f"M{x - 4:.1f} {y - 2:.1f}h8l-4 6z"
    return f'<path class="edge" d="{data}"/><path class="tip" d="{tip}"/>'


def _box(box: Box, width: float, places: Layout, number: int, pitch: float) -> str:
    x, y = _MARGIN + places.centres[number], _middle(places.ranks[number], pitch)
    left, top = x - width / 2, y - _HEIGHT / 2
    corner = 5 if box.role == "call" else _HEIGHT / 2
    return (
        f'<g class="{box.role}{" marked" if box.mark else ""}"><rect x="{left:.1f}" y="{top:.1f}" '
        f'width="{width:.1f}" height="{_HEIGHT:g}" rx="{corner:g}"/>'
        f'<text class="name" x="{x:.1f}" y="{y - 3:.1f}" text-anchor="middle">{esc(box.title)}'
        f'</text><text class="detail" x="{x:.1f}" y="{y + 12:.1f}" text-anchor="middle">'
        f"{esc(box.detail)}</text></g>"
    )
