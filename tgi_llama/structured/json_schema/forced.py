"""How much text a schema may force at once: a run of characters without a choice for the model."""

import attrs

from .definitions import Definitions
from .pattern import Chars, Node, Repeat
from .pattern import Sequence as Row
from .shapes import Array, Object, Reference, Shape, Text, Union

_AROUND = 6
"""Quotes, a colon, a comma and spaces around a name."""


@attrs.define(eq=False)
class Forced:
    """Estimates on the safe side. What a definition forces inside of itself is left out: every
    level of it has to be chosen first."""

    definitions: Definitions
    _known: dict[frozenset[str], int] = attrs.field(factory=dict, init=False)

    def most(self, shape: Shape) -> int:
        """Characters, roughly."""
        if isinstance(shape, Reference):
            if shape.targets not in self._known:
                self._known[shape.targets] = 0
                self._known[shape.targets] = self.most(self.definitions.body(shape))
            return self._known[shape.targets]
        if isinstance(shape, Union):
            return max(map(self.most, shape.options))
        if isinstance(shape, Array):
            return self._in_array(shape)
        if isinstance(shape, Object):
            return self._in_object(shape)
        return _in_text(shape) if isinstance(shape, Text) else _AROUND

    def _in_array(self, shape: Array) -> int:
        rest = self.most(shape.rest)
        n_more = max(1, shape.min_items - len(shape.prefix))
        return sum(map(self.most, shape.prefix)) + n_more * (rest + _AROUND)

    def _in_object(self, shape: Object) -> int:
        """All that have to be there, and one that may."""
        found, largest = 0, self.most(shape.additional)
        for name, value in shape.properties.items():
            one = len(name) + _AROUND + self.most(value)
            found += one if name in shape.required else 0
            largest = max(largest, one)
        return found + max([largest, *(self.most(value) for _, value in shape.patterns)])


def _in_text(shape: Text) -> int:
    if shape.literals is not None:
        return max(map(len, shape.literals)) + _AROUND
    return max([shape.min_length, *(_in_pattern(one.node) for one in shape.patterns)]) + _AROUND


def _in_pattern(node: Node) -> int:
    if isinstance(node, Chars):
        return 1
    if isinstance(node, Repeat):
        return max(1, node.low) * _in_pattern(node.node)
    if isinstance(node, Row):
        return sum(map(_in_pattern, node.parts))
    return max(map(_in_pattern, node.options), default=0)
