"""KServe's protocol, version 2, as TGI speaks it: texts travel as lists of bytes."""

from typing import Annotated, Final

import attrs

from .fields import U64, IntegerRange
from .generate_requests import GenerateParameters
from .parse_error import ParseError

U8 = Annotated[int, IntegerRange(0, 255)]

# TGI samples when `parameters` is absent and decodes greedily when it is `{}`.
_ABSENT: Final = GenerateParameters(do_sample=True)


class NotUtf8(ParseError):
    """The bytes of an input are no text."""


@attrs.frozen(kw_only=True)
class InferInput:
    """A prompt. ``shape`` and ``datatype`` are read and not judged, as in TGI."""

    name: str
    shape: tuple[U64, ...]
    datatype: str
    data: tuple[U8, ...]
    """The bytes of its UTF-8 form."""

    @property
    def text(self) -> str:
        """Raises NotUtf8."""
        try:
            return bytes(self.data).decode()
        except UnicodeDecodeError as error:
            raise NotUtf8(_decoder_message(error), path="data") from None


@attrs.frozen(kw_only=True)
class RequestedOutput:
    name: str


@attrs.frozen(kw_only=True)
class InferRequest:
    id: str
    parameters: GenerateParameters = _ABSENT
    """For all inputs."""
    inputs: tuple[InferInput, ...]
    outputs: tuple[RequestedOutput, ...]
    """One for each input: the names to answer with."""

    def read_prompts(self) -> tuple[str, ...]:
        """The texts of all inputs. Raises NotUtf8, whose path begins with ``inputs``."""
        prompts: list[str] = []
        try:
            for one in self.inputs:
                prompts.append(one.text)
        except NotUtf8 as error:
            raise error.under(len(prompts)).under("inputs") from None
        return tuple(prompts)


def _decoder_message(error: UnicodeDecodeError) -> str:
    """In the words of Rust's decoder, which TGI passes on."""
    if error.reason == "unexpected end of data":
        return f"incomplete utf-8 byte sequence from index {error.start}"
    n_bytes = error.end - error.start
    return f"invalid utf-8 sequence of {n_bytes} bytes from index {error.start}"


@attrs.frozen(kw_only=True)
class InferOutput:
    name: str
    shape: tuple[int, int]
    """One text of so many bytes."""
    datatype: str = "BYTES"
    data: tuple[int, ...]

    @classmethod
    def of_text(cls, text: str, *, name: str) -> "InferOutput":
        utf8 = text.encode()
        return cls(name=name, shape=(1, len(utf8)), data=tuple(utf8))


@attrs.frozen(kw_only=True)
class InferResponse:
    id: str
    outputs: tuple[InferOutput, ...]


@attrs.frozen(kw_only=True)
class Live:
    """All three health routes of the protocol answer with this key."""

    live: bool


@attrs.frozen(kw_only=True)
class ServerMetadata:
    name: str = "text-generation-inference"
    version: str
    extensions: tuple[str, ...] = ("health", "models", "metrics")


@attrs.frozen(kw_only=True)
class ModelMetadata:
    """Name and version are the ones asked for."""

    name: str
    version: str
    extensions: tuple[str, ...] = ("infer", "ready")
