"""Every exception that tgi_llama raises on purpose.

One table in ``server/failures.py`` turns them into HTTP answers and one in ``cli.py`` into exit
statuses. A message is written for the person who sees it: it names the field, option or file, the
limit, and the value that was found.
"""


class TgiLlamaError(Exception):
    """Root of all deliberate exceptions of this package."""


class ConfigError(TgiLlamaError):
    """An option, an environment variable or a file named by one is wrong (exit status 2)."""


class StartError(TgiLlamaError):
    """The options are right but the server cannot start here, for example for want of memory
    (exit status 1)."""


class RequestError(TgiLlamaError):
    """Base of what ends one request and leaves the server as it was."""


class ValidationError(RequestError):
    """The request is wrong (422). ``field`` is the JSON path of the culprit where one is known."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class SuffixNotSupported(ValidationError):
    """A completion asked for infilling (422, with an error type of its own)."""


class TooManyPrompts(ValidationError):
    """More prompts in one call than ``max_client_batch_size`` (422, with an error type of its
    own)."""


class TemplateError(RequestError):
    """The chat template refused the messages or failed on them (422)."""


class ToolError(RequestError):
    """The request's tools and its choice of them contradict each other (422)."""


class Forbidden(RequestError):
    """What was asked for is not for this client (403)."""


class AdapterNotFound(RequestError):
    """There is no LoRA adapter of this name (404)."""


class AdapterConflict(RequestError):
    """The name is taken, or something is being done with it (409)."""


class Overloaded(RequestError):
    """No permit is free (429)."""


class GenerationError(RequestError):
    """The engine gave up on this request; the engine lives on (424)."""


class AdapterError(RequestError):
    """A LoRA adapter cannot be loaded: the file is missing or damaged, or not made for this model
    (422). The message has llama.cpp's words where there are any. Everything is as it was."""


class IncompleteGeneration(RequestError):
    """The stream ended without a terminal event (500)."""


class ShuttingDown(RequestError):
    """The server is stopping: it takes nothing new, or ended this request at its deadline (503)."""


class RequestCancelled(RequestError):
    """The client went away; nobody is left to read this."""


class EngineDead(RequestError):
    """The decode thread is gone; the process ends with a non-zero status (503)."""


class GrammarNotCompiled(TgiLlamaError):
    """The grammar is not known yet, and the caller has no time to compile it. No client sees this:
    ``admission`` has the request validated again by somebody who has."""


class DecodeError(TgiLlamaError):
    """``ModelRunner.decode`` did not decode the whole batch. See ``engine.model_runner``."""


class OutOfCells(DecodeError):
    """No free cells for the batch; nothing was decoded and the cells are as before (code 1)."""


class DecodeAborted(DecodeError):
    """Stopped between physical batches; earlier ones are kept, so lengths must be read again
    (code 2)."""


class InvalidBatch(DecodeError):
    """The batch breaks a rule (ids, positions, sizes). Nothing was decoded (code -1)."""


class DecodeFailed(DecodeError):
    """Allocation or computation failed; the cells of the batch's sequences are in an unknown state
    (code -2 or -3)."""


class BenchError(TgiLlamaError):
    """``tgi-llama bench`` cannot measure: the server is not there, or it answered nothing of use
    (exit status 1)."""


class MeasuredRequestFailed(BenchError):
    """One measured request failed; the measurement goes on and counts it. ``kind`` is the short
    name under which it is counted, for example ``http 429``."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
