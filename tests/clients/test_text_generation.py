"""TGI's own Python package, ``text-generation`` (contract 10.2)."""

import asyncio

import pytest
from text_generation import AsyncClient, Client
from text_generation.types import FinishReason, Message

PROMPT = "1, 2, 3, 4,"
MESSAGES = [Message(role="user", content="Count from 1 to 5.")]

EVERY_STREAM_PARAMETER = {
    "do_sample": True,
    "max_new_tokens": 6,
    "repetition_penalty": 1.1,
    "frequency_penalty": 0.5,
    "return_full_text": True,
    "seed": 2**40 + 1,
    "stop_sequences": ["\n\n"],
    "temperature": 0.9,
    "top_k": 20,
    "top_p": 0.95,
    "truncate": 5,
    "typical_p": 0.95,
    "watermark": True,
    "top_n_tokens": 2,
}

# The package was written for an earlier pydantic.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")


def test_generate_gives_text_and_details(server_url: str) -> None:
    response = Client(server_url).generate(PROMPT, max_new_tokens=6)
    details = response.details
    assert details.finish_reason in (FinishReason.Length, FinishReason.EndOfSequenceToken)
    assert details.generated_tokens == len(details.tokens)
    assert (details.seed, details.prefill, details.best_of_sequences) == (None, [], None)
    texts = [token.text for token in details.tokens if not token.special]
    assert "".join(texts) == response.generated_text


def test_generate_stream_gives_the_same_tokens(server_url: str) -> None:
    client = Client(server_url)
    whole = client.generate(PROMPT, max_new_tokens=6)
    *others, last = client.generate_stream(PROMPT, max_new_tokens=6)
    assert all(event.generated_text is None for event in others)
    assert last.generated_text == whole.generated_text
    assert [event.token for event in (*others, last)] == whole.details.tokens
    assert last.details is not None
    assert last.details.generated_tokens == len(others) + 1


def test_generate_takes_every_parameter(server_url: str) -> None:
    client = Client(server_url)
    whole = client.generate(PROMPT, **EVERY_STREAM_PARAMETER)
    assert whole.generated_text.startswith(PROMPT)
    assert whole.details.seed == EVERY_STREAM_PARAMETER["seed"]
    assert whole.details.top_tokens is not None
    assert all(len(top) >= 2 for top in whole.details.top_tokens)
    *_, last = client.generate_stream(PROMPT, **EVERY_STREAM_PARAMETER)
    assert last.generated_text == whole.generated_text


def test_generate_best_of_and_prompt_tokens(server_url: str) -> None:
    details = (
        Client(server_url)
        .generate(PROMPT, best_of=2, decoder_input_details=True, do_sample=True, max_new_tokens=4)
        .details
    )
    assert details.best_of_sequences is not None
    assert len(details.best_of_sequences) == 1
    assert details.prefill[0].logprob is None
    assert PROMPT in "".join(token.text for token in details.prefill)


def test_chat_answers(server_url: str) -> None:
    answer = Client(server_url).chat(MESSAGES, max_tokens=6, temperature=0.5, seed=1, top_p=0.9)
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage["completion_tokens"] <= 6


def test_async_client_gives_what_the_other_gives(server_url: str) -> None:
    async def ask() -> tuple[str, str | None, str]:
        client = AsyncClient(server_url)
        whole, chat = await asyncio.gather(
            client.generate(PROMPT, max_new_tokens=6),
            client.chat(MESSAGES, max_tokens=6, temperature=0.5, seed=1),
        )
        last = None
        async for event in client.generate_stream(PROMPT, max_new_tokens=6):
            last = event.generated_text
        return whole.generated_text, last, chat.choices[0].message.content

    whole, last, chat = asyncio.run(ask())
    client = Client(server_url)
    assert whole == last == client.generate(PROMPT, max_new_tokens=6).generated_text
    again = client.chat(MESSAGES, max_tokens=6, temperature=0.5, seed=1)
    assert chat == again.choices[0].message.content
