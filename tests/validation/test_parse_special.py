"""Where the spelling of a control token in a client's text becomes that token."""

import json
from collections.abc import Sequence

import attrs
import pytest
from fakes.vocabulary import MID, PRE, SUF, ByteVocabulary

from tgi_llama.errors import TemplateError
from tgi_llama.generation import TokenId
from tgi_llama.text.spellings import Span, Spellings
from tgi_llama.validation.client_text import Conversation, PromptText, rendered
from tgi_llama.validation.prompts import ParseSpecial
from tgi_llama.validation.rules import Limits
from tgi_llama.validation.validator import Validator
from tgi_llama.wire.converter import parse
from tgi_llama.wire.generate_requests import GenerateRequest
from tgi_llama.wire.openai_requests import ChatRequest, CompletionRequest

END = TokenId(999)
SPELLINGS = Spellings(["<end>"])


@attrs.frozen
class EndTokenizer:
    """One token per character, and ``END`` for ``<end>``."""

    n_vocab: int = 1000
    spellings: Spellings = SPELLINGS

    def encode(
        self, text: str, *, add_special: bool, literals: Sequence[Span] = ()
    ) -> list[TokenId]:
        del add_special
        ids: list[TokenId] = []
        end = 0
        for start, stop in self.spellings.find(text):
            if (start, stop) not in literals:
                ids += [*map(self._of, text[end:start]), END]
                end = stop
        return [*ids, *map(self._of, text[end:])]

    def _of(self, character: str) -> TokenId:
        return TokenId(ord(character))


@attrs.define(eq=False)
class Template:
    """Writes each message and ends it."""

    n_renderings: int = 0
    reads_tools: bool = True

    def render(self, messages, **_arguments):  # type: ignore[no-untyped-def]
        self.n_renderings += 1
        return "".join(f"{message['content']}<end>" for message in messages)


def validator(parse_special: str, template: Template | None = None) -> Validator:
    return Validator(
        Limits(max_input_tokens=64, max_total_tokens=100),
        EndTokenizer(),
        template or Template(),
        vocabulary=ByteVocabulary(),
        parse_special_tokens=ParseSpecial(parse_special),
    )


def letters(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


@pytest.mark.parametrize(
    ("where", "in_prompts", "in_chats"),
    [("prompts", True, False), ("all", True, True), ("none", False, False)],
)
def test_spellings_are_read_where_the_option_says(
    where: str, *, in_prompts: bool, in_chats: bool
) -> None:
    judge = validator(where)
    in_prompt = (ord("a"), END) if in_prompts else letters("a<end>")
    in_chat = (ord("a"), END, END) if in_chats else (*letters("a<end>"), END)

    request = parse(GenerateRequest, b'{"inputs": "a<end>"}')
    (prepared,) = judge.generate(request, streaming=False)
    assert prepared.request.prompt_ids == in_prompt
    assert prepared.prompt == "a<end>"

    several = parse(CompletionRequest, b'{"prompt": ["a<end>", "a<end>"]}')
    assert [one.request.prompt_ids for one in judge.completion(several)] == [in_prompt] * 2

    around = parse(CompletionRequest, b'{"prompt": "a<end>", "suffix": "a<end>"}')
    (filled,) = judge.completion(around)
    assert filled.request.prompt_ids == (PRE, *in_prompt, SUF, *in_prompt, MID)

    (chat,) = judge.chat(chat_request("a<end>"))
    assert chat.request.prompt_ids == in_chat
    assert chat.prompt == "a<end><end>"

    for text, ids in (
        (judge.prompt_text("a<end>"), in_prompt),
        (judge.chat_text(chat_request("a<end>")), in_chat),
    ):
        encoded = judge.tokenizer.encode(text.text, add_special=True, literals=text.literals)
        assert tuple(encoded) == ids


def chat_request(content: str) -> ChatRequest:
    body = {"messages": [{"role": "user", "content": content}]}
    return parse(ChatRequest, json.dumps(body).encode())


def test_token_ids_are_what_the_client_says() -> None:
    (prepared,) = validator("none").completion(parse(CompletionRequest, b'{"prompt": [1, 256]}'))
    assert prepared.request.prompt_ids == (1, 256)


def test_truncation_counts_the_letters_of_a_spelling() -> None:
    body = b'{"inputs": "ab<end>", "parameters": {"truncate": 3}}'
    (prepared,) = validator("none").generate(parse(GenerateRequest, body), streaming=False)
    assert prepared.request.prompt_ids == letters("nd>")


@pytest.mark.parametrize(("content", "n_renderings"), [("hello", 1), ("a<end>", 2), ("a <", 2)])
def test_conversation_without_spellings_is_rendered_once(content: str, n_renderings: int) -> None:
    template = Template()
    validator("prompts", template).chat(chat_request(content))
    assert template.n_renderings == n_renderings


def test_marks_are_others_each_time() -> None:
    seen = []

    def render(conversation: Conversation) -> str:
        seen.append(str(conversation.messages[0]["content"]))
        return seen[-1]

    conversation = Conversation(messages=[{"content": "<end>"}], tools=None, variables={})
    for _ in range(2):
        assert rendered(conversation, render, SPELLINGS) == PromptText("<end>", [(0, 5)])
    assert seen[::2] == ["<end>"] * 2
    assert len(set(seen[1::2])) == 2


def test_every_kind_of_value_is_looked_into() -> None:
    def render(conversation: Conversation) -> str:
        return f"{conversation}"

    values = {"<end>": [("<end>", {"a": "<end>"}, 1, None, True, 2.5)]}
    conversation = Conversation(messages=[values], tools=[values], variables=values)
    found = rendered(conversation, render, SPELLINGS)
    assert len(found.literals) == found.text.count("<end>") == 9


def test_conversation_that_is_nested_too_deep_is_a_template_error() -> None:
    deep: object = "<end>"
    for _ in range(2000):
        deep = [deep]
    conversation = Conversation(messages=[], tools=None, variables={"a": deep})
    with pytest.raises(TemplateError, match="nested too deep"):
        rendered(conversation, lambda _: "", SPELLINGS)


def test_spelling_that_a_template_drops_leaves_no_trace() -> None:
    def render(conversation: Conversation) -> str:
        content = str(conversation.messages[0]["content"])
        return f"{content.split('<end>')[-1]}<end>"

    conversation = Conversation(messages=[{"content": "a<end>b"}], tools=None, variables={})
    assert rendered(conversation, render, SPELLINGS) == PromptText("b<end>", [])


def test_half_a_surrogate_pair_in_a_prompt_is_a_template_error() -> None:
    class Half(Template):
        def render(self, *_messages, **_arguments):  # type: ignore[no-untyped-def]
            return "\ud800"

    for where in ("prompts", "all"):
        with pytest.raises(TemplateError, match="not valid Unicode"):
            validator(where, Half()).chat_text(chat_request("a"))
