"""The keywords that constrain values of one type, read together: a shape for each type."""

import itertools
from collections.abc import Callable
from fractions import Fraction

import attrs

from tgi_llama.errors import ValidationError

from . import ecma, formats, pattern
from .algebra import Algebra, item_of, make_array, make_number, make_object, make_text
from .document import Place
from .gaps import Gaps
from .paths import child
from .shapes import (
    ANYTHING,
    Anything,
    Array,
    Boolean,
    Never,
    Null,
    Number,
    Object,
    Shape,
    Text,
    Union,
    options_of,
    union_of,
)
from .values import count, items, member, members, names, number, wrong_type
from .vocabulary import APPLICATORS

TYPES = ("null", "boolean", "number", "integer", "string", "array", "object")
MAX_CONTAINS = 16  # positions that are tried out for ``contains``
MAX_ORDERS = 64  # lists that are written out for ``uniqueItems``

Node = dict[str, object]


@attrs.define(eq=False)
class Assertions:
    """``subschema`` reads the schemas inside."""

    subschema: Callable[[Place], Shape]
    algebra: Algebra
    gaps: Gaps
    _patterns: dict[str, pattern.Pattern | None] = attrs.field(factory=dict, init=False)

    def read(self, node: Node, place: Place) -> Shape:
        """What all assertions of this schema allow together."""
        readers: dict[str, Callable[[], Shape]] = {
            "null": Null,
            "boolean": Boolean,
            "number": lambda: self._number(node, place, integer=False),
            "integer": lambda: self._number(node, place, integer=True),
            "string": lambda: self._text(node, place),
            "array": lambda: self._array(node, place),
            "object": lambda: self._object(node, place),
        }
        types = self._types(node, place)
        found = [readers[name]() for name in types]
        if len(found) == 6 and found == [Null(), Boolean(), Number(), Text(), Array(), Object()]:
            return ANYTHING
        return union_of(found, at=place.path)

    def _types(self, node: Node, place: Place) -> list[str]:
        every = [name for name in TYPES if name != "integer"]
        if "type" not in node:
            return every
        value = node["type"]
        listed = [value] if isinstance(value, str) else names(value, "type", place)
        for name in listed:
            if name not in TYPES:
                raise wrong_type("type", f"one or several of {', '.join(TYPES)}", place)
        nullable = node.get("nullable", False)
        if not isinstance(nullable, bool):
            raise wrong_type("nullable", "a boolean", place)
        wanted = dict.fromkeys([*listed, *(["null"] if nullable else [])])
        return [name for name in wanted if name != "integer" or "number" not in wanted]

    def _number(self, node: Node, place: Place, *, integer: bool) -> Shape:
        shape: Shape = Number(integer=integer, at=place.path)
        step = number(node, "multipleOf", place)
        if step is not None:
            if step <= 0:
                raise wrong_type("multipleOf", "a number above 0", place)
            at = child(place.path, "multipleOf")
            part = make_number(Number(multiple_of=step, at=at))
            shape = self.algebra.intersect(shape, part, at=at)
        for keyword, bound in self._bounds(node, place):
            shape = self.algebra.intersect(shape, bound, at=child(place.path, keyword))
        limits = formats.INTEGERS.get(str(node.get("format")))
        if limits is not None:
            low, high = (Fraction(limit) for limit in limits)
            bounds = Number(integer=True, low=low, high=high, at=place.path)
            shape = self.algebra.intersect(shape, bounds, at=child(place.path, "format"))
        return attrs.evolve(shape, at=place.path) if isinstance(shape, Number) else shape

    def _bounds(self, node: Node, place: Place) -> list[tuple[str, Number]]:
        found: list[tuple[str, Number]] = []
        for keyword in ("minimum", "maximum"):
            exclusive = f"exclusive{keyword.capitalize()}"
            flag = node.get(exclusive)
            bound = number(node, keyword, place)
            at = child(place.path, keyword)
            if bound is not None:  # draft 4: the exclusive one is a boolean beside it
                found.append((keyword, _bound(keyword, bound, included=flag is not True, at=at)))
            if exclusive in node and not isinstance(flag, bool):
                other = number(node, exclusive, place)
                assert other is not None
                at = child(place.path, exclusive)
                found.append((exclusive, _bound(keyword, other, included=False, at=at)))
        return found

    def _text(self, node: Node, place: Place) -> Shape:
        found: list[pattern.Pattern | None] = []
        if "pattern" in node:
            source = node["pattern"]
            if not isinstance(source, str):
                raise wrong_type("pattern", "a string", place)
            compiled = self._compiled(source, at=child(place.path, "pattern"))
            if isinstance(compiled, Never):
                return compiled
            found.append(compiled)
        if "format" in node:
            found.append(self._format(node["format"], place))
        return make_text(
            Text(
                min_length=count(node, "minLength", place) or 0,
                max_length=count(node, "maxLength", place),
                patterns=tuple(one for one in found if one is not None),
                at=place.path,
            )
        )

    def _format(self, name: object, place: Place) -> pattern.Pattern | None:
        """None for those that are dropped, annotations, or about numbers."""
        if not isinstance(name, str):
            raise wrong_type("format", "a string", place)
        at = child(place.path, "format")
        if name in formats.UNSUPPORTED:
            self.gaps.drop(f"no grammar is known for the format {name!r}", at=at)
        elif name not in formats.PATTERNS and name not in formats.INTEGERS:
            self.gaps.ignored[at] = None
        return formats.pattern_of(name) if name in formats.PATTERNS else None

    def _compiled(self, source: str, *, at: str) -> pattern.Pattern | Never | None:
        """None if it is dropped."""
        try:
            if source not in self._patterns:
                self.algebra.effort.spend(1 + len(source) // 4)
                self._patterns[source] = ecma.compiled(source)
            compiled = self._patterns[source]
        except ecma.UnsupportedPattern as error:
            self.gaps.drop(str(error), at=at)
            return None
        except ValidationError as error:
            raise ValidationError(f"the schema is not valid: {error}", field=at) from None
        return Never("the pattern matches no string", at) if compiled is None else compiled

    def _array(self, node: Node, place: Place) -> Shape:
        old_style = isinstance(node.get("items"), list)
        rest_word = "additionalItems" if old_style else "items"
        prefix = [
            self.subschema(one)
            for one in items(node, "items" if old_style else "prefixItems", place)
        ]
        rest = self.subschema(member(node, rest_word, place)) if rest_word in node else ANYTHING
        if "unevaluatedItems" in node and rest_word not in node:
            rest = self._unevaluated("unevaluatedItems", node, place)
        shape = make_array(
            Array(
                min_items=count(node, "minItems", place) or 0,
                max_items=count(node, "maxItems", place),
                prefix=tuple(prefix),
                rest=rest,
                at=place.path,
            )
        )
        shape = self._containing(shape, node, place)
        return self._unique(shape, node, place)

    def _unevaluated(self, keyword: str, node: Node, place: Place) -> Shape:
        """What no other keyword speaks of is easy to tell only where all stand here."""
        if any(word in APPLICATORS - {"const", "enum"} for word in node) or "contains" in node:
            if node[keyword] is not True:
                self.gaps.drop(
                    "beside $ref, allOf and the like it depends on which of them apply",
                    at=child(place.path, keyword),
                )
            return ANYTHING
        return self.subschema(member(node, keyword, place))

    def _containing(self, shape: Shape, node: Node, place: Place) -> Shape:
        if "contains" not in node or not isinstance(shape, Array):
            return shape
        at = child(place.path, "contains")
        wanted = self.subschema(member(node, "contains", place))
        least = count(node, "minContains", place)
        if "maxContains" in node:
            count(node, "maxContains", place)
            self.gaps.drop(
                "items cannot be counted by their kind", at=child(place.path, "maxContains")
            )
        if least == 0:
            return shape
        if least is not None and least > 1:
            self.gaps.drop(
                "items cannot be counted by their kind", at=child(place.path, "minContains")
            )
        if isinstance(wanted, Anything):
            return self.algebra.intersect(shape, Array(min_items=1, at=at), at=at)
        if shape.max_items is None or shape.max_items > MAX_CONTAINS:
            self.gaps.drop(f"it needs a maxItems of {MAX_CONTAINS} or less", at=at)
            return shape
        found: list[Shape] = [Never("no item can be what contains says", at)]
        for index in range(shape.max_items):
            before: tuple[Shape, ...] = (ANYTHING,) * index
            one = Array(min_items=index + 1, prefix=(*before, wanted), at=at)
            found.append(self.algebra.intersect(shape, make_array(one), at=at))
        return union_of(found, at=at)

    def _unique(self, shape: Shape, node: Node, place: Place) -> Shape:
        flag = node.get("uniqueItems", False)
        if not isinstance(flag, bool):
            raise wrong_type("uniqueItems", "a boolean", place)
        if not flag or isinstance(shape, Never):
            return shape
        at = child(place.path, "uniqueItems")
        orders = [self._orders(one, at=at) for one in options_of(shape) if isinstance(one, Array)]
        if any(order is None for order in orders):
            self.gaps.drop("a grammar does not remember earlier items", at=at)
            return shape
        return union_of([one for order in orders for one in order or []], at=at)

    def _orders(self, shape: Array, *, at: str) -> list[Shape] | None:
        """All arrays without repetition, if they are few."""
        if shape.max_items is not None and shape.max_items <= 1:
            return [shape]
        if isinstance(shape.rest, Never) and self._all_differ(shape, at=at):
            return [shape]
        values = None if shape.prefix else singletons(shape.rest)
        if values is None or len(values) > 6:
            return None
        most = len(values) if shape.max_items is None else min(shape.max_items, len(values))
        found: list[Shape] = []
        for length in range(shape.min_items, most + 1):
            for order in itertools.permutations(values, length):
                nothing = Never("no more items", at)
                found.append(
                    Array(min_items=length, max_items=length, prefix=order, rest=nothing, at=at)
                )
                if len(found) > MAX_ORDERS:
                    return None
        return found or [Never("there are not enough different items", at)]

    def _all_differ(self, shape: Array, *, at: str) -> bool:
        most = shape.max_items if shape.max_items is not None else len(shape.prefix)
        pairs = itertools.combinations((item_of(shape, index) for index in range(most)), 2)
        return most <= 16 and all(self.algebra.are_disjoint(a, b, at=at) for a, b in pairs)

    def _object(self, node: Node, place: Place) -> Shape:
        required = names(node.get("required", []), "required", place)
        additional: Shape = ANYTHING
        if "additionalProperties" in node:
            additional = self.subschema(member(node, "additionalProperties", place))
        elif "unevaluatedProperties" in node:
            additional = self._unevaluated("unevaluatedProperties", node, place)
        patterns: list[tuple[pattern.Pattern, Shape]] = []
        for source, one in members(node, "patternProperties", place):
            compiled = self._compiled(source, at=one.path)
            if isinstance(compiled, pattern.Pattern):
                patterns.append((self._widened(source, compiled), self.subschema(one)))
        shape = Object(patterns=tuple(patterns), additional=additional, at=place.path)
        properties: dict[str, Shape] = {}
        for name, one in members(node, "properties", place):
            own = self.subschema(one)
            if patterns:
                others = [
                    value for key, value in patterns if self.algebra.matches(key.wide or key, name)
                ]
                own = self.algebra.all_of([own, *others], at=one.path)
            properties[name] = own
        for name in required:
            if name not in properties:
                properties[name] = self.algebra.property_of(shape, name, at=place.path)
        shape = attrs.evolve(
            shape,
            properties=properties,
            required=frozenset(required),
            min_properties=count(node, "minProperties", place) or 0,
            max_properties=count(node, "maxProperties", place),
        )
        if "propertyNames" in node:
            shape = self._named(shape, member(node, "propertyNames", place))
        return make_object(shape)

    def _widened(self, source: str, narrow: pattern.Pattern) -> pattern.Pattern:
        """The pattern with its ``wide`` one, where that can be written."""
        self.algebra.effort.spend(1 + len(source) // 4)
        try:
            wide = ecma.compiled(source, wide=True)
        except ecma.UnsupportedPattern:
            return narrow
        return narrow if wide in (None, narrow) else attrs.evolve(narrow, wide=wide)

    def _named(self, shape: Object, place: Place) -> Object:
        """The object with names restricted to those that ``propertyNames`` allows."""
        at = place.path
        options = [one for one in options_of(self.subschema(place)) if not isinstance(one, Never)]
        heads = [self.algebra.head(one) for one in options]
        texts = [one for head in heads for one in options_of(head) if isinstance(one, Text)]
        wrong = Never("propertyNames does not allow the name", at)
        properties = {
            name: value if any(self.algebra.is_text(text, name) for text in texts) else wrong
            for name, value in shape.properties.items()
        }
        if Text() in texts or (isinstance(shape.additional, Never) and not shape.patterns):
            return attrs.evolve(shape, properties=properties)
        if shape.patterns:
            self.gaps.drop("beside patternProperties its effect is no pattern", at=at)
            return shape
        patterns = []
        for text in texts:
            if text.literals is not None:
                for word in text.literals:
                    properties.setdefault(word, shape.additional)
                continue
            if text.excluded or (
                text.patterns and (text.min_length or text.max_length is not None)
            ):
                self.gaps.drop("names with several rules at once are no pattern", at=at)
                return shape
            patterns.append(_as_pattern(text))
        chosen = {found for found in patterns if found is not None}
        if len(chosen) > 1 or None in patterns:
            self.gaps.drop("names with several rules at once are no pattern", at=at)
            return shape
        return attrs.evolve(
            shape,
            properties=properties,
            patterns=tuple((one, shape.additional) for one in chosen),
            additional=wrong,
        )


def _bound(keyword: str, value: Fraction, *, included: bool, at: str) -> Number:
    if keyword == "minimum":
        return Number(low=value, low_included=included, at=at)
    return Number(high=value, high_included=included, at=at)


def _as_pattern(text: Text) -> pattern.Pattern | None:
    """The one pattern that says the same; None if there are several."""
    if len(text.patterns) > 1:
        return None
    if text.patterns:
        return text.patterns[0]
    node = pattern.Repeat(pattern.ANY_CHAR, text.min_length, text.max_length)
    return pattern.Pattern(node)


def singletons(shape: Shape) -> list[Shape] | None:
    """The values of a finite shape, each as a shape; None if they are not easily listed."""
    found: list[Shape] = []
    for option in shape.options if isinstance(shape, Union) else (shape,):
        if isinstance(option, Null):
            found.append(option)
        elif isinstance(option, Boolean):
            found.extend(Boolean(frozenset({value})) for value in sorted(option.values))
        elif isinstance(option, Text) and option.literals is not None:
            found.extend(Text(literals=(word,), at=option.at) for word in option.literals)
        elif isinstance(option, Number) and option.low is not None and option.low == option.high:
            found.append(option)
        else:
            return None
    return list(dict.fromkeys(found)) if all(_hashable(one) for one in found) else None


def _hashable(shape: Shape) -> bool:
    return isinstance(shape, Null | Boolean | Text | Number)
