"""From schemas to shapes: what every keyword means."""

from collections.abc import Callable

import attrs

from tgi_llama.errors import ValidationError

from .algebra import Algebra, Effort
from .assertions import Assertions
from .complement import NotRepresentable, complement, exactly_one
from .document import Document, Place, base_of
from .gaps import Gaps
from .paths import child
from .shapes import ANYTHING, EVERY_TYPE, Never, Object, Reference, Shape, union_of
from .values import items, literals, member, members, names, wrong_type
from .vocabulary import ANNOTATIONS, APPLICATORS, ASSERTIONS, KNOWN, meant


@attrs.define(eq=False)
class Reader:
    """One document. Definitions are read when something refers to them, each once."""

    document: Document
    gaps: Gaps
    effort: Effort
    _heads: dict[frozenset[str], Shape] = attrs.field(factory=dict, init=False)
    _open: set[frozenset[str]] = attrs.field(factory=set, init=False)
    _places: dict[str, Place] = attrs.field(factory=dict, init=False)
    _meant: dict[str, str | None] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.algebra = Algebra(self.expand, self.effort)
        self._assertions = Assertions(self.read, self.algebra, self.gaps)

    algebra: Algebra = attrs.field(init=False)
    _assertions: Assertions = attrs.field(init=False)

    def expand(self, reference: Reference) -> Shape:
        """What is behind a reference; no reference itself."""
        targets = reference.targets
        if targets in self._heads:
            return self._heads[targets]
        path = min(targets)
        if targets in self._open:
            raise ValidationError("the definition refers to itself without end", field=path)
        self._open.add(targets)
        with self.effort:
            if len(targets) == 1:
                shape = self.read(self._places[path])
                if isinstance(shape, Reference):
                    shape = self.expand(shape)
            else:
                each = [self.expand(Reference(frozenset({one}))) for one in sorted(targets)]
                shape = self.algebra.all_of(each, at=path)
                if isinstance(shape, Reference):
                    shape = self.expand(shape)
        self._open.discard(targets)
        self._heads[targets] = shape
        return shape

    def read(self, place: Place) -> Shape:
        """The shape of one schema. Raises ValidationError with the culprit's path."""
        node = place.node
        if node is True:
            return ANYTHING
        if node is False:
            return Never("the schema is false", place.path)
        if not isinstance(node, dict):
            raise ValidationError(
                "the schema is not valid: expected an object or a boolean", field=place.path
            )
        with self.effort:
            place = attrs.evolve(place, base=base_of(node, place.base))
            self._check_words(node, place)
            shape: Shape = ANYTHING
            for keyword in self._in_order(node):
                part = self._part(keyword, node, place)
                shape = self.algebra.intersect(shape, part, at=place.path)
            return shape

    def _in_order(self, node: dict[str, object]) -> list[str]:
        """The keywords to read, the first decides on the order of properties. All assertions are
        read at once where ``properties`` are, or else the first of them."""
        asserted = [word for word in node if word in ASSERTIONS]
        place = "properties" if "properties" in node else next(iter(asserted), None)
        return [word for word in node if word in APPLICATORS or word == place]

    def _check_words(self, node: dict[str, object], place: Place) -> None:
        for word in node:
            if word in KNOWN:
                continue
            if word not in self._meant:
                self.effort.spend(20)
                self._meant[word] = meant(word)
            better = self._meant[word]
            at = child(place.path, word)
            if better is None:
                self.gaps.ignored[at] = None
            elif self.gaps.relaxed:
                self.gaps.dropped[at] = None
            else:
                raise ValidationError(f"unknown keyword {word!r}; {better!r} is one", field=at)

    def _part(self, keyword: str, node: dict[str, object], place: Place) -> Shape:
        reader = READERS.get(keyword)
        if reader is None:
            return self._assertions.read(node, place)
        return reader(self, node, place)

    def reference(self, node: dict[str, object], place: Place) -> Shape:
        target = node["$ref"]
        at = child(place.path, "$ref")
        if not isinstance(target, str):
            raise wrong_type("$ref", "a string", place)
        found = self.document.resolve(target, place.base, at=at)
        self._places.setdefault(found.path, found)
        return Reference(frozenset({found.path}))

    def dynamic_reference(self, node: dict[str, object], place: Place) -> Shape:
        keyword = "$dynamicRef" if "$dynamicRef" in node else "$recursiveRef"
        self.gaps.drop(
            "what it refers to depends on where it is used", at=child(place.path, keyword)
        )
        return ANYTHING

    def const(self, node: dict[str, object], place: Place) -> Shape:
        at = child(place.path, "const")
        return literals([member(node, "const", place)], self.effort, at=at)

    def enum(self, node: dict[str, object], place: Place) -> Shape:
        values = items(node, "enum", place)
        if not values:
            return Never("enum is empty", child(place.path, "enum"))
        return literals(values, self.effort, at=child(place.path, "enum"))

    def all_of(self, node: dict[str, object], place: Place) -> Shape:
        shapes = [self.read(one) for one in items(node, "allOf", place)]
        return self.algebra.all_of(shapes, at=child(place.path, "allOf"))

    def any_of(self, node: dict[str, object], place: Place) -> Shape:
        return self._options(node, "anyOf", place)[0]

    def _options(
        self, node: dict[str, object], keyword: str, place: Place
    ) -> tuple[Shape, list[Shape]]:
        at = child(place.path, keyword)
        shapes = [self.read(one) for one in items(node, keyword, place)]
        if not shapes:
            return Never(f"{keyword} is empty", at), []
        union = union_of(shapes, at=at)
        return (
            (Never(f"no option of {keyword} is ever valid: {union.reason}", union.at), [])
            if (isinstance(union, Never))
            else (union, shapes)
        )

    def one_of(self, node: dict[str, object], place: Place) -> Shape:
        union, shapes = self._options(node, "oneOf", place)
        at = child(place.path, "oneOf")
        try:
            return exactly_one(self.algebra, shapes, at=at) if shapes else union
        except NotRepresentable as error:
            reason = f"options may be valid together, and no grammar is known for {error}"
            self.gaps.drop(reason, at=at)
            return union

    def negation(self, node: dict[str, object], place: Place) -> Shape:
        at = child(place.path, "not")
        try:
            return complement(self.algebra, self.read(member(node, "not", place)), at=at)
        except NotRepresentable as error:
            self.gaps.drop(f"no grammar is known for {error}", at=at)
            return ANYTHING

    def condition(self, node: dict[str, object], place: Place) -> Shape:
        if not {"then", "else"} & set(node):
            return ANYTHING
        at = child(place.path, "if")
        condition = self.read(member(node, "if", place))
        branches = [
            self.read(member(node, word, place)) if word in node else ANYTHING
            for word in ("then", "else")
        ]
        try:
            otherwise = complement(self.algebra, condition, at=at)
        except NotRepresentable as error:
            self.gaps.drop(f"no grammar is known for {error}", at=at)
            return ANYTHING
        return union_of(
            [
                self.algebra.intersect(condition, branches[0], at=child(place.path, "then")),
                self.algebra.intersect(otherwise, branches[1], at=child(place.path, "else")),
            ],
            at=at,
        )

    def dependent_required(self, node: dict[str, object], place: Place) -> Shape:
        rules = [
            self._depends(name, self._requiring(one), at=one.path)
            for name, one in members(node, "dependentRequired", place)
        ]
        return self.algebra.all_of(rules, at=child(place.path, "dependentRequired"))

    def dependent_schemas(self, node: dict[str, object], place: Place) -> Shape:
        rules = [
            self._depends(name, self.read(one), at=one.path)
            for name, one in members(node, "dependentSchemas", place)
        ]
        return self.algebra.all_of(rules, at=child(place.path, "dependentSchemas"))

    def dependencies(self, node: dict[str, object], place: Place) -> Shape:
        rules = [
            self._depends(
                name,
                self._requiring(one) if isinstance(one.node, list) else self.read(one),
                at=one.path,
            )
            for name, one in members(node, "dependencies", place)
        ]
        return self.algebra.all_of(rules, at=child(place.path, "dependencies"))

    def _requiring(self, place: Place) -> Shape:
        required = names(place.node, "dependentRequired", place)
        return Object(
            properties=dict.fromkeys(required, ANYTHING),
            required=frozenset(required),
            at=place.path,
        )

    def _depends(self, name: str, rule: Shape, *, at: str) -> Shape:
        """Where the object has the name, the rule holds; other types have no names."""
        others = [one for one in EVERY_TYPE if not isinstance(one, Object)]
        absent = Object(properties={name: Never(f"{name!r} is absent", at)}, at=at)
        present = Object(properties={name: ANYTHING}, required=frozenset({name}), at=at)
        with_rule = self.algebra.intersect(present, rule, at=at)
        return union_of([absent, with_rule, *others], at=at)


READERS: dict[str, Callable[[Reader, dict[str, object], Place], Shape]] = {
    "$ref": Reader.reference,
    "$dynamicRef": Reader.dynamic_reference,
    "$recursiveRef": Reader.dynamic_reference,
    "const": Reader.const,
    "enum": Reader.enum,
    "allOf": Reader.all_of,
    "anyOf": Reader.any_of,
    "oneOf": Reader.one_of,
    "not": Reader.negation,
    "if": Reader.condition,
    "dependentRequired": Reader.dependent_required,
    "dependentSchemas": Reader.dependent_schemas,
    "dependencies": Reader.dependencies,
}
assert set(READERS) == APPLICATORS
assert not ANNOTATIONS & (APPLICATORS | ASSERTIONS)
