"""Calls with a list of inputs, answered with a text for each: ``/vertex`` and KServe's infer."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import attrs
from quart import Response, request

from tgi_llama.errors import TemplateError, ToolError, ValidationError
from tgi_llama.metrics import FailureKind
from tgi_llama.validation.prepared import PreparedGeneration
from tgi_llama.validation.validator import Validator
from tgi_llama.wire import converter
from tgi_llama.wire.generate_requests import GenerateRequest
from tgi_llama.wire.generate_responses import ErrorBody
from tgi_llama.wire.openai_requests import ChatRequest

from . import generations
from .bodies import json_response
from .chat_turns import whole_turn
from .exchange import record_of
from .generations import Collected
from .services import Services


@attrs.frozen
class Input:
    """One input of a call."""

    request: GenerateRequest | ChatRequest
    """Asks for one text."""
    place: Callable[[str | None], str]
    """From a field of ``request`` to its JSON path in the body, from None to the input's own."""

    def precheck(self, validator: Validator) -> None:
        with self._errors_say_where():
            validator.precheck(self.request, streaming=False)

    def prepare(self, validator: Validator) -> tuple[PreparedGeneration, ...]:
        """For a validation worker: the ``best_of`` generations of this input."""
        with self._errors_say_where():
            if isinstance(self.request, ChatRequest):
                return validator.chat(self.request)
            return validator.generate(self.request, streaming=False)

    @contextmanager
    def _errors_say_where(self) -> Iterator[None]:
        try:
            yield
        except ValidationError as error:
            raise error_at(self.place(error.field), str(error)) from error
        except (TemplateError, ToolError) as error:
            raise type(error)(f"{self.place(None)}: {error}") from error


def error_at(path: str, message: str) -> ValidationError:
    """The error that something is wrong at ``path`` of the body: with several inputs, the name of a
    field alone would not tell which one is meant."""
    return ValidationError(f"{path}: {message}", field=path)


async def answer_each(services: Services, inputs: Sequence[Input]) -> list[str]:
    """The texts of all inputs, in their order; they are generated at the same time, with a permit
    for each generation. The request is then a success. Raises as ``generations.start``, and the
    error of the first generation that fails, which ends the others."""
    generations.check_can_run(len(inputs), services.admission)  # before the work on all of them
    validator = services.validator

    def prepare() -> list[PreparedGeneration]:
        return [
            attrs.evolve(prepared, index=index)
            for index, one in enumerate(inputs)
            for prepared in one.prepare(validator)
        ]

    def precheck() -> None:
        for one in inputs:
            one.precheck(validator)

    with ExitStack() as resources:
        received = services.clock()
        started = await generations.start(
            services, resources, prepare, received=received, precheck=precheck
        )
        results = await generations.collect(started)
    record_of(request).succeeded()
    return [_text(result) for result in generations.shown(results)]


def _text(result: Collected) -> str:
    """A chat's content. With tool calls it is all that was generated, as in TGI: there is no other
    place for them."""
    prepared = result.prepared
    if prepared.make_parser is not None:
        message = whole_turn(result).message
        return result.text if message.tool_calls else message.content or ""
    return (prepared.prompt if prepared.return_full_text else "") + result.text


def refusal(error: str, error_type: str) -> Response:
    """422 with the text and type that TGI has for one route alone; the request has failed by it."""
    record_of(request).failed(FailureKind.VALIDATION)
    return json_response(converter.dump(ErrorBody(error=error, error_type=error_type)), 422)
