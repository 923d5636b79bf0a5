"""What SageMaker sends to ``/invocations``: a body of one of three other routes."""

from collections.abc import Mapping
from typing import Final

from .generate_requests import CompatGenerateRequest
from .openai_requests import ChatRequest, CompletionRequest
from .parse_error import ParseError
from .untagged import first_that_fits

Invocation = CompatGenerateRequest | ChatRequest | CompletionRequest

_KINDS: Final[Mapping[str, type[Invocation]]] = {
    "inputs": CompatGenerateRequest,
    "messages": ChatRequest,
    "prompt": CompletionRequest,
}


def read_invocation(body: object) -> Invocation:
    """``body`` is plain JSON. The first kind that it can be read as, in the order ``inputs``,
    ``messages``, ``prompt``. Raises ParseError, also where it has none of these keys."""
    invocation = first_that_fits(body, _KINDS)
    if invocation is None:
        raise ParseError(
            "expected an object with `inputs`, `messages` or `prompt`: "
            "data did not match any variant of untagged enum SagemakerRequest"
        )
    return invocation
