"""Shapes as schemas for llguidance, in a small part of JSON Schema that it surely enforces.

Every schema here is ``true``, ``false``, a ``$ref`` to ``$defs``, an ``anyOf``, an ``enum`` of
strings or one ``type`` with its own keywords: nothing that llguidance would have to intersect but
patterns.
"""

import itertools
import math
from collections.abc import Iterator

import attrs

from tgi_llama.errors import ValidationError

from .algebra import Effort, item_of
from .definitions import Definitions
from .gaps import Gaps
from .numbers import written_number
from .overlap import first_overlap
from .paths import child
from .pattern import CONTROLS, Pattern, other_than
from .shapes import (
    Anything,
    Array,
    Boolean,
    Null,
    Number,
    Object,
    Reference,
    Shape,
    Text,
    Union,
)

HOIST_AT = 20  # schemas in schemas; deeper ones become definitions, for llguidance's JSON reader
MAX_VARIANTS = 64  # of one object, for its number of properties
MAX_ITEMS = 10_000  # llguidance writes arrays out item by item
MAX_PROPERTIES = 2_000  # of one object: llguidance's time grows with the square
MAX_LENGTH = 1_000_000  # no answer gets that long: an upper bound above it says nothing


@attrs.define(eq=False)
class Emission:
    """One schema. Definitions are written as far as the root needs them."""

    definitions: Definitions
    gaps: Gaps
    effort: Effort
    _names: dict[frozenset[str], str] = attrs.field(factory=dict, init=False)
    _written: dict[str, object] = attrs.field(factory=dict, init=False)
    _count: int = attrs.field(default=0, init=False)
    _waiting: list[tuple[str, Shape]] = attrs.field(factory=list, init=False)

    def document(self, root: Shape) -> object:
        """The whole schema with its ``$defs``."""
        top = self.schema(root, level=0)
        while self._waiting:
            name, shape = self._waiting.pop()
            self._written[name] = self.schema(shape, level=0)
        if not self._written or not isinstance(top, dict):
            return top
        return {**top, "$defs": self._written}

    def schema(self, shape: Shape, *, level: int) -> object:
        """One shape. What is not satisfiable is ``false``."""
        self.effort.spend()
        if isinstance(shape, Anything):
            return True
        if not self.definitions.is_satisfiable(shape):
            return False
        if isinstance(shape, Reference):
            return self._reference(shape)
        if level >= HOIST_AT and isinstance(shape, Union | Array | Object):
            return self._defined(shape)
        if isinstance(shape, Union):
            options = [self.schema(option, level=level + 1) for option in shape.options]
            return {"anyOf": [option for option in options if option is not False]}
        if isinstance(shape, Array):
            return self._array(shape, level=level)
        if isinstance(shape, Object):
            return self._object(shape, level=level)
        return self._scalar(shape)

    def _reference(self, shape: Reference) -> object:
        name = self._names.get(shape.targets)
        if name is None:
            name = self._names[shape.targets] = self._new_name()
            self._waiting.append((name, self.definitions.body(shape)))
        return {"$ref": f"#/$defs/{name}"}

    def _defined(self, shape: Shape) -> object:
        name = self._new_name()
        self._waiting.append((name, shape))
        return {"$ref": f"#/$defs/{name}"}

    def _new_name(self) -> str:
        self._count += 1
        return str(self._count)

    def _scalar(self, shape: Shape) -> object:
        if isinstance(shape, Null):
            return {"type": "null"}
        if isinstance(shape, Boolean):
            if len(shape.values) == 2:
                return {"type": "boolean"}
            return {"const": next(iter(shape.values))}
        if isinstance(shape, Number):
            return written_number(shape)
        assert isinstance(shape, Text)
        return self._text(shape)

    def _text(self, shape: Text) -> object:
        if shape.literals is not None:
            for word in shape.literals:
                if not CONTROLS.isdisjoint(map(ord, word)):
                    raise ValidationError(
                        "strings with control characters cannot be enforced", field=shape.at
                    )
            return {"enum": list(shape.literals)}
        found: dict[str, object] = {"type": "string"}
        if shape.min_length > MAX_LENGTH:
            raise ValidationError(
                f"a minLength above {MAX_LENGTH} cannot be enforced",
                field=child(shape.at, "minLength"),
            )
        if shape.min_length:
            found["minLength"] = shape.min_length
        if shape.max_length is not None and shape.max_length <= MAX_LENGTH:
            found["maxLength"] = shape.max_length
        patterns = [one.text for one in shape.patterns]
        if shape.excluded:
            patterns.append(Pattern(other_than(shape.excluded)).text)
        if len(patterns) == 1:
            return {**found, "pattern": patterns[0]}
        if patterns:
            return {"allOf": [found, *({"type": "string", "pattern": one} for one in patterns)]}
        return found

    def _array(self, shape: Array, *, level: int) -> object:
        possible = [self.definitions.is_satisfiable(item) for item in shape.prefix]
        length = possible.index(False) if False in possible else len(possible)
        most = shape.max_items
        if length < len(possible):
            most = length if most is None else min(most, length)
        found: dict[str, object] = {"type": "array"}
        if length:
            found["prefixItems"] = [
                self.schema(item_of(shape, index), level=level + 1) for index in range(length)
            ]
        rest = self.schema(shape.rest, level=level + 1)
        if rest is not True:
            found["items"] = rest
        for word, bound in (("minItems", shape.min_items), ("maxItems", most)):
            if not bound and (word == "minItems" or bound is None):
                continue
            if bound > MAX_ITEMS:
                if word == "maxItems" and bound > MAX_LENGTH:
                    continue
                raise ValidationError(
                    f"a {word} above {MAX_ITEMS} cannot be enforced", field=child(shape.at, word)
                )
            found[word] = bound
        return found

    def _object(self, shape: Object, *, level: int) -> object:
        if len(shape.properties) > MAX_PROPERTIES:
            raise ValidationError(
                f"more than {MAX_PROPERTIES} properties of one object are too many", field=shape.at
            )
        properties = {
            name: self.schema(value, level=level + 1) for name, value in shape.properties.items()
        }
        base: dict[str, object] = {"type": "object", "properties": properties}
        if shape.patterns:
            base["patternProperties"] = {
                key.text: self.schema(value, level=level + 1)
                for key, (_, value) in zip(self._keys(shape), shape.patterns, strict=True)
            }
        additional = self.schema(shape.additional, level=level + 1)
        if additional is not True:
            base["additionalProperties"] = additional
        variants = list(self._variants(shape, base))
        return variants[0] if len(variants) == 1 else {"anyOf": variants}

    def _keys(self, shape: Object) -> list[Pattern]:
        """Where other names may have any value, those that one dialect alone matches may as well
        have what the pattern wants: validators of either kind are satisfied then."""
        narrow = [one for one, _ in shape.patterns]
        wide = [one.wide or one for one in narrow]
        is_open = isinstance(shape.additional, Anything)
        if is_open and wide != narrow and first_overlap(wide, self.effort.spend) is None:
            return wide
        self._check_overlaps(shape, narrow)
        return narrow

    def _check_overlaps(self, shape: Object, patterns: list[Pattern]) -> None:
        found = first_overlap(patterns, self.effort.spend)
        if found is not None:
            raise ValidationError(
                "patterns that match one name cannot be enforced:"
                f" {found[0].source!r} and {found[1].source!r}",
                field=child(shape.at, "patternProperties"),
            )

    def _variants(self, shape: Object, base: dict[str, object]) -> Iterator[object]:
        """The object as one schema, or as several where the number of its properties is limited:
        llguidance counts only what is beyond ``properties``."""
        properties = base["properties"]
        assert isinstance(properties, dict)
        required = [name for name in properties if name in shape.required]
        optional = [
            name
            for name, value in properties.items()
            if value is not False and name not in shape.required
        ]
        low, high = shape.min_properties - len(required), shape.max_properties
        high = None if high is None else high - len(required)
        is_closed = base.get("additionalProperties") is False and not any(
            self.definitions.is_satisfiable(value) for _, value in shape.patterns
        )
        if is_closed and high is not None and high >= len(optional):
            high = None
        if low <= 0 and high is None:
            yield _with_required(base, required)
        elif is_closed:
            yield from self._closed_variants(shape, base, required, optional, max(low, 0), high)
        else:
            yield from self._open_variants(shape, base, required, optional, max(low, 0), high)

    def _closed_variants(
        self,
        shape: Object,
        base: dict[str, object],
        required: list[str],
        optional: list[str],
        low: int,
        high: int | None,
    ) -> Iterator[object]:
        """Which properties may be there, and which of them have to."""
        most = len(optional) if high is None else high
        if math.comb(len(optional), most) * math.comb(most, low) > MAX_VARIANTS:
            yield self._uncounted(shape, base, required)
            return
        for allowed in itertools.combinations(optional, most):
            for present in itertools.combinations(allowed, low):
                absent = set(optional) - set(allowed)
                yield _with_required(_without(base, absent), [*required, *present])

    def _open_variants(
        self,
        shape: Object,
        base: dict[str, object],
        required: list[str],
        optional: list[str],
        low: int,
        high: int | None,
    ) -> Iterator[object]:
        """Which of the optional properties are there; llguidance counts the others."""
        if 2 ** len(optional) > MAX_VARIANTS or low > 1:
            # It does not see when one name comes twice, so it cannot count to two.
            yield self._uncounted(shape, base, required)
            return
        for size in range(len(optional) + 1):
            if high is not None and size > high:
                break
            for present in itertools.combinations(optional, size):
                variant = _without(base, set(optional) - set(present))
                counts: dict[str, object] = {}
                if low > size:
                    counts["minProperties"] = len(required) + low
                if high is not None:
                    counts["maxProperties"] = len(required) + high
                yield {**_with_required(variant, [*required, *present]), **counts}

    def _uncounted(
        self, shape: Object, base: dict[str, object], required: list[str]
    ) -> dict[str, object]:
        word = "minProperties" if shape.min_properties > len(required) else "maxProperties"
        self.gaps.drop("properties of this object cannot be counted", at=child(shape.at, word))
        return _with_required(base, required)


def _with_required(base: dict[str, object], required: list[str]) -> dict[str, object]:
    return {**base, "required": required} if required else base


def _without(base: dict[str, object], absent: set[str]) -> dict[str, object]:
    properties = base["properties"]
    assert isinstance(properties, dict)
    changed = {name: False if name in absent else value for name, value in properties.items()}
    return {**base, "properties": changed}
