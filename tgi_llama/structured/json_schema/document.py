"""The schema as a document: its nodes, their paths, and what references lead to.

References lead to places inside the document only: JSON pointers, ``$anchor``, and the ``$id`` of
another part. Nothing is ever fetched.
"""

from urllib.parse import unquote, urldefrag, urljoin

import attrs

from tgi_llama.errors import ValidationError

from .paths import child

MAX_VALUES = 150_000  # of any kind in the document; one or two megabytes
MAX_DEPTH = 120  # of objects and lists; half of what llguidance's JSON reader takes
INSTANCES = {"const", "enum", "default", "examples", "example"}  # data, not schemas


@attrs.frozen
class Place:
    """A node of the document, its JSON path, and the URI against which its references resolve."""

    node: object
    path: str
    base: str


@attrs.define(eq=False)
class Document:
    """One schema. Raises ValidationError when it is too large or too deep."""

    root: object
    field: str
    _places: dict[str, Place] = attrs.field(factory=dict, init=False)
    """By URI: the root, and every part with an ``$id`` or an anchor."""

    def __attrs_post_init__(self) -> None:
        place = Place(self.root, self.field, base_of(self.root, ""))
        self._places[""] = self._places[place.base] = place
        self._walk(place)

    def _walk(self, root: Place) -> None:
        left = MAX_VALUES
        waiting = [(root, 0, True)]
        while waiting:
            place, depth, is_schema = waiting.pop()
            left -= 1
            if depth > MAX_DEPTH or left < 0:
                limit = f"{MAX_DEPTH} levels" if left >= 0 else f"{MAX_VALUES} values"
                raise ValidationError(f"the schema has more than {limit}", field=self.field)
            if isinstance(place.node, str):
                _check_text(place.node, at=place.path)
            elif isinstance(place.node, dict):
                base = self._registered(place) if is_schema else place.base
                for key, value in place.node.items():
                    _check_text(key, at=place.path)
                    below = Place(value, child(place.path, key), base)
                    waiting.append((below, depth + 1, is_schema and key not in INSTANCES))
            elif isinstance(place.node, list):
                waiting.extend(
                    (Place(value, child(place.path, index), place.base), depth + 1, is_schema)
                    for index, value in enumerate(place.node)
                )

    def _registered(self, place: Place) -> str:
        """Notes the node's own URIs; returns the base for what is inside."""
        node = place.node
        base = base_of(node, place.base)
        if base != place.base:
            place = attrs.evolve(place, base=base)
            self._places.setdefault(base, place)
        assert isinstance(node, dict)
        anchor = node.get("$anchor")
        if isinstance(anchor, str):
            self._places.setdefault(f"{base}#{anchor}", place)
        return base

    @property
    def top(self) -> Place:
        return self._places[""]

    def resolve(self, reference: str, base: str, *, at: str) -> Place:
        """What the reference leads to; raises ValidationError if that is outside or nowhere."""
        whole, fragment = urldefrag(urljoin(base, reference) if base else reference)
        fragment = unquote(fragment)
        resource = self._places.get(whole)
        if resource is None:
            raise ValidationError(
                f"$ref {reference!r} leads out of the schema; nothing is fetched", field=at
            )
        if not fragment:
            return resource
        if not fragment.startswith("/"):
            found = self._places.get(f"{whole}#{fragment}")
        else:  # from the root too: an "id" may be meant as an annotation
            found = _at_pointer(resource, fragment) or _at_pointer(self.top, fragment)
        if found is None:
            raise ValidationError(f"$ref {reference!r} leads to nothing", field=at)
        return found


def _check_text(text: str, *, at: str) -> None:
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ValidationError("half of a surrogate pair is no character", field=at)


def base_of(node: object, outer: str) -> str:
    """The base URI inside a node, which an ``$id`` changes."""
    if not isinstance(node, dict):
        return outer
    own = node.get("$id", node.get("id"))
    if not isinstance(own, str) or own.startswith("#") or not own:
        return outer
    return urldefrag(urljoin(outer, own) if outer else own)[0]


def _at_pointer(resource: Place, pointer: str) -> Place | None:
    place = resource
    for escaped in pointer.split("/")[1:]:
        key = escaped.replace("~1", "/").replace("~0", "~")
        node = place.node
        if isinstance(node, dict) and key in node:
            value, path = node[key], child(place.path, key)
        elif isinstance(node, list) and key.isdigit() and int(key) < len(node):
            value, path = node[int(key)], child(place.path, int(key))
        else:
            return None
        place = Place(value, path, base_of(value, place.base))
    return place
