"""The routes that only tokenize: ``/tokenize`` and ``/chat_tokenize``. They take no permit."""

import attrs
from quart import Response, request

from tgi_llama.validation.client_text import PromptText
from tgi_llama.wire import converter
from tgi_llama.wire.generate_requests import GenerateRequest
from tgi_llama.wire.generate_responses import TokenizeEntry
from tgi_llama.wire.openai_requests import ChatRequest
from tgi_llama.wire.tokenize import ChatTokenizeResponse

from .bodies import json_response, read_request
from .routes import Route
from .services import Services


@attrs.frozen
class TokenizeRoutes:
    services: Services

    def table(self) -> tuple[Route, ...]:
        return (
            Route("POST", "/tokenize", "tokenize", self.tokenize),
            Route("POST", "/chat_tokenize", "get_chat_tokenize", self.chat_tokenize),
        )

    async def tokenize(self) -> Response:
        admission = self.services.admission
        text = (await read_request(request, GenerateRequest, admission)).inputs
        body = await admission.validate(lambda: self._tokenize(text))
        return json_response(body)

    async def chat_tokenize(self) -> Response:
        admission = self.services.admission
        chat_request = await read_request(request, ChatRequest, admission)
        body = await admission.validate(lambda: self._chat_tokenize(chat_request))
        return json_response(body)

    # Encoding and writing are work for long texts: these run on a validation worker.

    def _tokenize(self, text: str) -> bytes:
        prompt = self.services.validator.prompt_text(text)
        return converter.dump(self._entries(prompt, add_special=True))

    def _chat_tokenize(self, chat_request: ChatRequest) -> bytes:
        text = self.services.validator.chat_text(chat_request)
        # The template writes the special tokens itself.
        entries = self._entries(text, add_special=False)
        response = ChatTokenizeResponse(tokenize_response=entries, templated_text=text.text)
        return converter.dump(response)

    def _entries(self, text: PromptText, *, add_special: bool) -> tuple[TokenizeEntry, ...]:
        utf8 = text.text.encode()
        spans = self.services.tokenizer.encode_with_offsets(
            text.text, add_special=add_special, literals=text.literals
        )
        return tuple(
            TokenizeEntry(
                id=span.id,
                text=utf8[span.start : span.stop].decode(errors="replace"),
                start=span.start,
                stop=span.stop,
            )
            for span in spans
        )
