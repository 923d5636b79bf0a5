"""The words of JSON Schema, all drafts from 4 to 2020-12, and of OpenAPI's dialect."""

import difflib

ANNOTATIONS = frozenset(
    (
        "$schema",
        "$id",
        "id",
        "$anchor",
        "$dynamicAnchor",
        "$recursiveAnchor",
        "$comment",
        "$vocabulary",
        "$defs",
        "definitions",
        "title",
        "description",
        "default",
        "examples",
        "example",
        "deprecated",
        "readOnly",
        "writeOnly",
        "contentEncoding",
        "contentMediaType",
        "contentSchema",
        "discriminator",
        "externalDocs",
        "xml",
        "enumNames",
        "enumDescriptions",
        "markdownDescription",
        "errorMessage",
        "propertyOrdering",
    )
)
"""What says nothing about validity, or what is looked up by references only."""

ASSERTIONS = frozenset(
    (
        "type",
        "nullable",
        "properties",
        "required",
        "additionalProperties",
        "patternProperties",
        "propertyNames",
        "minProperties",
        "maxProperties",
        "items",
        "prefixItems",
        "additionalItems",
        "minItems",
        "maxItems",
        "uniqueItems",
        "contains",
        "minContains",
        "maxContains",
        "minLength",
        "maxLength",
        "pattern",
        "format",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "unevaluatedProperties",
        "unevaluatedItems",
    )
)
"""What is read together, as one shape for each type."""

APPLICATORS = frozenset(
    (
        "$ref",
        "$dynamicRef",
        "$recursiveRef",
        "enum",
        "const",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "if",
        "dependentRequired",
        "dependentSchemas",
        "dependencies",
    )
)
"""What is read one by one; the results are intersected."""

BESIDE_IF = frozenset({"then", "else"})
KNOWN = ANNOTATIONS | ASSERTIONS | APPLICATORS | BESIDE_IF
_LOWER = {word.lower(): word for word in ASSERTIONS | APPLICATORS | BESIDE_IF}


def meant(word: str) -> str | None:
    """The keyword that somebody may have meant who wrote an unknown word, for example ``minLength``
    for ``minlength``; None if it looks like a word of its own."""
    if word.startswith("x-") or len(word) > 30:
        return None
    close = difflib.get_close_matches(word.lower(), _LOWER, n=1, cutoff=0.9)
    return _LOWER[close[0]] if close else None
