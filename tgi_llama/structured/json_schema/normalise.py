"""JSON schemas of clients, made into equivalent ones that llguidance surely enforces.

The schema is read into shapes (``reader``, ``assertions``): sets of values in which ``allOf``,
``not``, ``if`` and references with keywords beside them are worked out (``algebra``,
``complement``). Shapes are written as schemas again (``emission``), with a small part of the
vocabulary in which nothing is left to llguidance's own judgement. What is lost on the way is none
of the constraints, and a few values: see docs/structured-output.md.
"""

import attrs

from tgi_llama.errors import ValidationError

from .algebra import Effort
from .definitions import Definitions
from .document import Document
from .emission import Emission
from .forced import Forced
from .gaps import Gaps
from .reader import Reader
from .shapes import Never

COMPILE_OPTIONS: dict[str, object] = {
    "json_allowed_escapes": 'nrbtf"\\',
    "json_allow_general_unicode_escapes": False,
    "coerce_one_of": False,
    "lenient": False,
}
"""llguidance has to compile the schema with these. Without the first it takes ``"\\u0061"`` for
another name than ``"a"``, and the schema of ``a`` is not enforced."""


@attrs.frozen(kw_only=True)
class Normalised:
    """A schema for llguidance. No client's key of its own (``x-guidance``) is left in it."""

    schema: object
    relaxed_paths: tuple[str, ...] = ()
    """Keywords that are not enforced; empty unless that was asked for."""
    ignored_paths: tuple[str, ...] = ()
    """Keywords and formats that no standard gives a meaning to."""
    most_forced: int = 0
    """Characters that it may force at once: see ``forced``."""


def normalise(schema: object, *, field: str, relaxed: bool = False) -> Normalised:
    """The schema for llguidance. ``field`` is the JSON path under which the client sent it.

    Raises ValidationError, with the path of the culprit, for what is no schema, what no value
    satisfies, what cannot be enforced (``relaxed`` drops and lists it instead), and what is too
    large, too deep or too much work. A megabyte takes two seconds
    at most. Any thread.
    """
    gaps = Gaps(relaxed)
    effort = Effort(field)
    try:
        document = Document(schema, field)
        reader = Reader(document, gaps, effort)
        shape = reader.read(document.top)
        definitions = Definitions(shape, reader, effort)
        if not definitions.is_satisfiable(shape):
            raise _unsatisfiable(shape, field=field)
        written = Emission(definitions, gaps, effort).document(shape)
        most_forced = Forced(definitions).most(shape)
    except RecursionError:  # the bounds on depth are below Python's own, unless the stack is full
        raise ValidationError("the schema is nested too deeply", field=field) from None
    except ValidationError as error:
        if error.field is not None:
            raise
        raise ValidationError(str(error), field=field) from None
    return Normalised(
        schema={} if written is True else written,
        relaxed_paths=tuple(gaps.dropped),
        ignored_paths=tuple(gaps.ignored),
        most_forced=most_forced,
    )


def _unsatisfiable(shape: object, *, field: str) -> ValidationError:
    if isinstance(shape, Never):
        return ValidationError(f"the schema is unsatisfiable: {shape.reason}", field=shape.at)
    return ValidationError("the schema is unsatisfiable: no finite value is valid", field=field)
