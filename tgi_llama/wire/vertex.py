"""What Vertex AI sends to ``/vertex``, and the answer."""

from collections.abc import Mapping
from typing import Final

import attrs

from .generate_requests import GenerateParameters, GenerateRequest
from .openai_requests import ChatRequest
from .parse_error import ParseError
from .shapes import describe
from .untagged import first_that_fits


@attrs.frozen(kw_only=True)
class GenerateInstance:
    """A prompt."""

    inputs: str
    parameters: GenerateParameters | None = None
    """``null`` is the same as absent, unlike on the other routes."""

    @property
    def generate_request(self) -> GenerateRequest:
        """The same as ``/generate`` takes it."""
        if self.parameters is None:
            return GenerateRequest(inputs=self.inputs)
        return GenerateRequest(inputs=self.inputs, parameters=self.parameters)


Instance = GenerateInstance | ChatRequest

_KINDS: Final[Mapping[str, type[Instance]]] = {"inputs": GenerateInstance, "messages": ChatRequest}


@attrs.frozen(kw_only=True)
class VertexBody:
    """The body, its instances still plain JSON."""

    instances: tuple[object, ...]

    def read_instances(self) -> tuple[Instance, ...]:
        """A chat where the object cannot be read as a prompt and has ``messages``. Raises
        ParseError, whose path begins with ``instances``."""
        instances: list[Instance] = []
        try:
            for value in self.instances:
                instances.append(_read_instance(value))
        except ParseError as error:
            raise error.under(len(instances)).under("instances") from None
        return tuple(instances)


def _read_instance(value: object) -> Instance:
    instance = first_that_fits(value, _KINDS)
    if instance is None:
        found = "neither" if isinstance(value, dict) else describe(value)
        raise ParseError(f"expected an object with `inputs` or `messages`, got {found}")
    return instance


@attrs.frozen(kw_only=True)
class Predictions:
    predictions: tuple[str, ...]
    """One text per instance, in their order."""
