"""The object graph of a checkpoint: which attribute of which object a variable was."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field

from npylstm import FormatError
from npylstm_converters.toolkit.wire import Message

__all__ = ["LONGEST_PATH", "Node", "ObjectGraph"]

# Attributes that hold no layers: lists of what is elsewhere in the graph, and training.
_ASIDE = frozenset({
    "variables", "trainable_variables", "non_trainable_variables", "_all_variables",
    "_trainable_variables", "_non_trainable_variables", "regularization_losses", "keras_api",
    "optimizer", "_optimizer", "signatures", "_metrics", "_loss_tracker", "_compile_metrics",
    "_random_generator", "save_counter",
})  # fmt: skip
_SEEDS = re.compile("_?seed_generators?(_[0-9]+)?")
_NUMBER = re.compile("0|[1-9][0-9]{0,8}")
LONGEST_PATH = 1000  # characters
_MOST_VISITS = 100  # of each object on average; a conversion makes about ten
# Where Keras lists the layers of a model: Keras 2 numbers them, Keras 3 has lists.
_LISTS = (("_operations",), ("_functional", "_operations"), ("_layers",))


@dataclass(frozen=True)
class Node:
    """An object: its attributes by name, and its variable if it is one.

    Attributes
    ----------
    children
        The number of the object in each attribute.
    key
        The variable's key in the checkpoint; empty for other objects.
    full_name
        The variable's name in TensorFlow: ``lstm/lstm_cell/kernel``.
    """

    children: dict[str, int] = field(default_factory=dict)
    key: str = ""
    full_name: str = ""


class ObjectGraph:
    """The objects by number; 0 is the one that was saved.

    Parameters
    ----------
    data
        A TrackableObjectGraph.

    Raises
    ------
    FormatError
        If it is damaged.
    """

    def __init__(self, data: bytes) -> None:
        self.nodes = [_node(fields) for fields in Message(data, 1).messages(1, 1, 2)]
        for node in self.nodes:
            for name, number in node.children.items():
                if number >= len(self.nodes):
                    raise FormatError(f"object graph: {name!r:.80}: no object {number}")
        if not self.nodes:
            raise FormatError("object graph: no objects")
        # Objects may share others, so that all paths together are far longer than the graph.
        self._left = _MOST_VISITS * sum(1 + len(node.children) for node in self.nodes)

    def find(self, node: int, *names: str) -> int | None:
        """Return the object that a path of attributes leads to, or None."""
        for name in names:
            child = self.nodes[node].children.get(name)
            if child is None:
                return None
            node = child
        return node

    def layers(self, node: int) -> dict[int, int]:
        """Return the layers of a model by place; empty if the object is no Keras model.

        Operations of Keras 3 are no objects, so their places are left out.
        """
        numbered = self._numbered(node, "layer-")
        if numbered:
            return numbered
        for names in _LISTS:
            listed = self.find(node, *names)
            if listed is not None and self._numbered(listed):
                return self._numbered(listed)
        return {}

    def parts(self) -> tuple[list[str], list[str]]:
        """Return the attributes of the saved object that are Keras models, and others with weights.

        Variables themselves, such as counters of steps, are neither.
        """
        own = {name: k for name, k in self.attributes(0) if k}
        models = [name for name, k in own.items() if self.layers(k)]
        others = [
            name
            for name, k in own.items()
            if name not in models and not self.nodes[k].key and self.variables(k)
        ]
        return models, others

    def variables(self, node: int) -> list[tuple[str, Node]]:
        """Return each variable below an object once, with the shortest path to it.

        They have the order of the attributes, which is that of their creation.
        """
        seen = {node}
        queue: deque[tuple[str, tuple[int, ...], int]] = deque([("", (), node)])
        found: list[tuple[tuple[int, ...], str, Node]] = []
        while queue:
            path, place, number = queue.popleft()
            self._left -= 1 + len(self.nodes[number].children)
            if self._left < 0:
                raise FormatError("object graph: too many objects share others")
            if len(path) > LONGEST_PATH:
                raise FormatError(f"object graph: {path:.80}...: objects inside objects, too deep")
            if self.nodes[number].key:
                found.append((place, path, self.nodes[number]))
            for k, (name, child) in enumerate(self.attributes(number)):
                if child not in seen:
                    seen.add(child)
                    queue.append((f"{path}/{name}" if path else name, (*place, k), child))
        return [(path, node) for _, path, node in sorted(found, key=lambda entry: entry[0])]

    def attributes(self, node: int) -> list[tuple[str, int]]:
        """Return the attributes of an object that may hold layers."""
        children = self.nodes[node].children.items()
        return [(n, k) for n, k in children if n not in _ASIDE and not _SEEDS.fullmatch(n)]

    def listed_variables(self) -> list[Node]:
        """Return the variables in the list ``variables`` of the saved object, if it has one."""
        listed = self.find(0, "variables")
        nodes = {} if listed is None else self._numbered(listed)
        return [self.nodes[k] for k in nodes.values() if self.nodes[k].key]

    def _numbered(self, node: int, prefix: str = "") -> dict[int, int]:
        """Return the children ``prefix0``, ``prefix1`` and so on by number."""
        found = {
            int(name.removeprefix(prefix)): child
            for name, child in self.nodes[node].children.items()
            if name.startswith(prefix) and _NUMBER.fullmatch(name.removeprefix(prefix))
        }
        return dict(sorted(found.items()))


def _node(fields: Message) -> Node:
    children = {c.text(2): c.integer(1) for c in fields.messages(1, 1, 2)}
    for attribute in fields.messages(2, 1, 2, 3):
        if attribute.text(1) == "VARIABLE_VALUE":
            return Node(children, attribute.text(3), attribute.text(2))
    return Node(children)
