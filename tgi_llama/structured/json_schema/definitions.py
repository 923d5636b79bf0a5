"""The definitions that a shape needs, and which of them any value satisfies at all."""

import attrs

from tgi_llama.errors import ValidationError

from .algebra import Effort
from .reader import Reader
from .shapes import (
    Array,
    Never,
    Object,
    Reference,
    Shape,
    Union,
)

MAX_CHAIN = 300  # schemas in schemas through references; llguidance's own stack ends at a thousand


@attrs.define(eq=False)
class Definitions:
    """Everything that is reachable from ``root``. Raises ValidationError for a definition that is
    itself and nothing else (``a: {$ref: a}``), and for chains that are too long."""

    root: Shape
    reader: Reader
    effort: Effort
    _bodies: dict[frozenset[str], Shape] = attrs.field(factory=dict, init=False)
    _possible: set[frozenset[str]] = attrs.field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        waiting = list(self._inside(self.root))
        while waiting:
            reference = waiting.pop()
            if reference.targets not in self._bodies:
                body = self.reader.expand(reference)
                self._bodies[reference.targets] = body
                waiting.extend(self._inside(body))
        self._check_guarded()
        self._check_chain()
        self._find_possible()

    def body(self, reference: Reference) -> Shape:
        return self._bodies[reference.targets]

    def _inside(self, shape: Shape) -> list[Reference]:
        """All references in a shape, in the order in which they are written out."""
        found: list[Reference] = []
        waiting = [shape]
        while waiting:
            one = waiting.pop()
            self.effort.spend()
            if isinstance(one, Reference):
                found.append(one)
            waiting.extend(reversed(children(one)))
        return found

    def _check_guarded(self) -> None:
        """A definition may need itself inside an object or array, not in its own place."""
        done: set[frozenset[str]] = set()
        for start in self._bodies:
            path: list[frozenset[str]] = []
            stack = [(start, False)]
            while stack:
                key, is_left = stack.pop()
                if is_left:
                    done.add(path.pop())
                elif key in path:
                    raise ValidationError(
                        "the definition refers to itself without end", field=min(key)
                    )
                elif key not in done:
                    path.append(key)
                    stack.append((key, True))
                    body = self._bodies[key]
                    options = body.options if isinstance(body, Union) else (body,)
                    stack.extend(
                        (one.targets, False) for one in options if isinstance(one, Reference)
                    )

    def _check_chain(self) -> None:
        """llguidance follows references depth first, each once, on its stack."""
        seen: set[frozenset[str]] = set()
        stack: list[tuple[Shape, int]] = [(self.root, 0)]
        while stack:
            shape, depth = stack.pop()
            if depth > MAX_CHAIN:
                raise ValidationError(
                    f"more than {MAX_CHAIN} schemas are nested, through references too",
                    field=self.effort.field,
                )
            if isinstance(shape, Reference):
                if shape.targets not in seen:
                    seen.add(shape.targets)
                    stack.append((self._bodies[shape.targets], depth + 1))
            else:
                stack.extend((one, depth + 1) for one in reversed(children(shape)))

    def _find_possible(self) -> None:
        """Those with a finite value: a list that has to go on for ever has none."""
        while True:
            new = [
                key
                for key, body in reversed(self._bodies.items())
                if key not in self._possible and self.is_satisfiable(body)
            ]
            if not new:
                return
            self._possible.update(new)

    def is_satisfiable(self, shape: Shape) -> bool:
        """Whether any value is in the shape, as far as patterns can be satisfied."""
        self.effort.spend()
        if isinstance(shape, Never):
            return False
        if isinstance(shape, Reference):
            return shape.targets in self._possible
        if isinstance(shape, Union):
            return any(self.is_satisfiable(option) for option in shape.options)
        if isinstance(shape, Array):
            needed = shape.prefix[: shape.min_items]
            return all(self.is_satisfiable(item) for item in needed) and (
                shape.min_items <= len(shape.prefix) or self.is_satisfiable(shape.rest)
            )
        if isinstance(shape, Object):
            return self._object_is_satisfiable(shape)
        return True

    def _object_is_satisfiable(self, shape: Object) -> bool:
        if not all(self.is_satisfiable(shape.properties[name]) for name in shape.required):
            return False
        if shape.min_properties <= len(shape.required):
            return True
        beyond = [shape.additional, *(value for _, value in shape.patterns)]
        if any(self.is_satisfiable(value) for value in beyond):
            return True
        possible = sum(self.is_satisfiable(value) for value in shape.properties.values())
        return shape.min_properties <= possible


def children(shape: Shape) -> list[Shape]:
    """The shapes inside, in the order in which they are written out."""
    if isinstance(shape, Union):
        return list(shape.options)
    if isinstance(shape, Array):
        return [*shape.prefix, shape.rest]
    if isinstance(shape, Object):
        return [*shape.properties.values(), *(one for _, one in shape.patterns), shape.additional]
    return []
