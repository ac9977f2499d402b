"""Positions for the boxes of a directed graph: ranks from top to bottom, with few crossings.

After Sugiyama, Tagawa and Toda, "Methods for visual understanding of hierarchical system
structures", IEEE Transactions on Systems, Man, and Cybernetics 11 (1981): ranks by the longest
path, order within a rank by the mean position of the neighbours, long edges through dummy nodes in
every rank between.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Layout", "layout", "longest_paths"]

_GAP = 18.0  # between boxes of a rank
_LANE = 12.0  # width that a long edge takes in a rank
_SWEEPS = 8


@dataclass(frozen=True)
class Layout:
    """The positions of the boxes.

    Attributes
    ----------
    centres
        For each box its middle, from the left.
    ranks
        For each box its rank, from the top.
    routes
        For each edge (place, rank) of its bends, both ends included.
    width
        Of the whole graph.
    """

    centres: tuple[float, ...]
    ranks: tuple[int, ...]
    routes: tuple[tuple[tuple[float, int], ...], ...]
    width: float


def layout(widths: Sequence[float], edges: Sequence[tuple[int, int]]) -> Layout:
    """Lay out a graph.

    Parameters
    ----------
    widths
        Of the boxes, in an order in which every edge points forward.
    edges
        Pairs of boxes.
    """
    count = len(widths)
    ranks = longest_paths(count, edges)
    all_ranks, all_widths = list(ranks), list(widths)
    chains: list[list[int]] = []
    for a, b in edges:
        chain = [a]
        for rank in range(ranks[a] + 1, ranks[b]):
            chain.append(len(all_ranks))
            all_ranks.append(rank)
            all_widths.append(_LANE)
        chains.append([*chain, b])
    above: list[list[int]] = [[] for _ in all_ranks]
    below: list[list[int]] = [[] for _ in all_ranks]
    for chain in chains:
        for a, b in itertools.pairwise(chain):
            below[a].append(b)
            above[b].append(a)
    rows: list[list[int]] = [[] for _ in range(max(all_ranks, default=-1) + 1)]
    for node, rank in enumerate(all_ranks):
        rows[rank].append(node)
    place = [0.0] * len(all_ranks)
    for row in rows:
        _put(row, all_widths, place, [0.0] * len(row))
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        neighbours = above if down else below
        for row in rows if down else rows[::-1]:
            wanted = {n: _mean([place[m] for m in neighbours[n]], place[n]) for n in row}
            if sweep < _SWEEPS // 2:  # later sweeps keep the order
                row.sort(key=wanted.__getitem__)
            _put(row, all_widths, place, [wanted[n] for n in row])
    left = min((p - w / 2 for p, w in zip(place, all_widths, strict=True)), default=0.0)
    right = max((p + w / 2 for p, w in zip(place, all_widths, strict=True)), default=0.0)
    place = [p - left for p in place]
    routes = tuple(tuple((place[n], all_ranks[n]) for n in chain) for chain in chains)
    return Layout(tuple(place[:count]), tuple(ranks), routes, right - left)


def longest_paths(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """Return ranks by the longest path from the top; sources are next to their readers."""
    ranks = [0] * count
    for a, b in sorted(edges, key=lambda e: e[1]):
        ranks[b] = max(ranks[b], ranks[a] + 1)
    fed = {b for _, b in edges}
    nearest: dict[int, int] = {}
    for a, b in edges:
        nearest[a] = min(ranks[b] - 1, nearest.get(a, ranks[b] - 1))
    return [rank if k in fed else nearest.get(k, rank) for k, rank in enumerate(ranks)]


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _put(row: list[int], widths: list[float], place: list[float], wanted: list[float]) -> None:
    """Move boxes as near to their wanted positions as their order and widths allow.

    Least squares under an order: neighbours that are too near move as one block (pool adjacent
    violators).
    """
    offsets = [0.0]
    for a, b in itertools.pairwise(row):
        offsets.append(offsets[-1] + (widths[a] + widths[b]) / 2 + _GAP)
    blocks: list[tuple[float, int]] = []  # mean of wanted positions less offsets, and boxes
    for want, offset in zip(wanted, offsets, strict=True):
        mean, size = want - offset, 1
        while blocks and blocks[-1][0] > mean:
            before, boxes = blocks.pop()
            mean = (before * boxes + mean * size) / (boxes + size)
            size += boxes
        blocks.append((mean, size))
    starts = [mean for mean, size in blocks for _ in range(size)]
    for node, start, offset in zip(row, starts, offsets, strict=True):
        place[node] = start + offset
