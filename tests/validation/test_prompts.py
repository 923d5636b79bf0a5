"""Prompts around a gap, prompts of token ids, prompts that are echoed or scored."""

import json
from collections.abc import Sequence

import pytest
from fakes.validation import BOS, ByteTokenizer
from fakes.vocabulary import MID, PRE, SUF, ByteVocabulary

from tgi_llama.errors import SuffixNotSupported, ValidationError
from tgi_llama.generation import TokenId
from tgi_llama.text.spellings import Span
from tgi_llama.validation.prepared import PreparedGeneration
from tgi_llama.validation.rules import Limits
from tgi_llama.validation.validator import Validator
from tgi_llama.wire.converter import parse
from tgi_llama.wire.generate_requests import GenerateRequest
from tgi_llama.wire.openai_requests import CompletionRequest

LIMITS = Limits(max_input_tokens=16, max_total_tokens=20)
WITHOUT_INFILL = ByteVocabulary(infill=None)


class WithEnd(ByteTokenizer):
    """Also puts a token behind the text, as some models' tokenizers do."""

    def encode(
        self, text: str, *, add_special: bool, literals: Sequence[Span] = ()
    ) -> list[TokenId]:
        ids = super().encode(text, add_special=add_special, literals=literals)
        return [*ids, TokenId(0)] if add_special else ids


def complete(
    tokenizer: ByteTokenizer | None = None,
    vocabulary: ByteVocabulary | None = ByteVocabulary(),  # noqa: B008
    **fields: object,
) -> tuple[PreparedGeneration, ...]:
    request = parse(CompletionRequest, json.dumps({"prompt": "ab", **fields}).encode())
    return Validator(LIMITS, tokenizer or ByteTokenizer(), vocabulary=vocabulary).completion(
        request
    )


def ids_of(*args: ByteTokenizer, **fields: object) -> list[tuple[TokenId, ...]]:
    return [one.request.prompt_ids for one in complete(*args, **fields)]


# --- infilling ------------------------------------------------------------------------------------


def test_suffix_goes_behind_the_gap() -> None:
    assert ids_of(suffix="c") == [(PRE, *b"ab", SUF, *b"c", MID)]


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(adds_bos=True), WithEnd(adds_bos=True)])
def test_suffix_keeps_what_the_tokenizer_puts_in_front(tokenizer: ByteTokenizer) -> None:
    assert ids_of(tokenizer, suffix="c") == [(BOS, PRE, *b"ab", SUF, *b"c", MID)]


def test_suffix_may_be_empty_and_so_may_the_prompt_before_one() -> None:
    assert ids_of(suffix="") == [(PRE, *b"ab", SUF, MID)]
    assert ids_of(prompt="", suffix="c") == [(PRE, SUF, *b"c", MID)]


def test_suffix_belongs_to_each_prompt() -> None:
    assert ids_of(prompt=["a", "b"], suffix="c") == [
        (PRE, *b"a", SUF, *b"c", MID),
        (PRE, *b"b", SUF, *b"c", MID),
    ]


def test_suffix_counts_against_the_limits() -> None:
    (prepared,) = complete(suffix="c" * 11)
    assert prepared.n_prompt_tokens == 16
    with pytest.raises(ValidationError, match=r"must have less than 16 tokens. Given: 17"):
        complete(suffix="c" * 12)


@pytest.mark.parametrize("prompt", [[97, 98], ["a", [98]]])
def test_suffix_of_token_ids_is_refused(prompt: object) -> None:
    with pytest.raises(ValidationError, match=r"^`suffix` needs a `prompt` that is text") as caught:
        complete(prompt=prompt, suffix="c")
    assert caught.value.field == "suffix"


def test_suffix_and_prompt_both_empty_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"^`inputs` cannot be empty$"):
        complete(prompt="", suffix="")


@pytest.mark.parametrize("vocabulary", [None, WITHOUT_INFILL])
@pytest.mark.parametrize("suffix", ["", "c"])
def test_suffix_without_infill_tokens_is_refused(
    vocabulary: ByteVocabulary | None, suffix: str
) -> None:
    with pytest.raises(SuffixNotSupported):
        complete(vocabulary=vocabulary, suffix=suffix)


# --- the text of token ids ------------------------------------------------------------------------


def test_token_ids_have_the_text_of_their_pieces() -> None:
    first, second = complete(prompt=[[BOS, *b"ab"], [*"é".encode()]])
    assert (first.prompt, second.prompt) == ("<s>ab", "é")


def test_token_ids_that_are_half_a_character_have_a_text_all_the_same() -> None:
    (prepared,) = complete(prompt=[0xC3])
    assert prepared.prompt == "\N{REPLACEMENT CHARACTER}"


# --- echo -----------------------------------------------------------------------------------------


def test_echo_without_logprobs_scores_no_prompt() -> None:
    (prepared,) = complete(echo=True)
    assert prepared.echo is True
    assert prepared.request.prompt_logprobs is False
    assert prepared.request.n_prompt_top_tokens == 0


@pytest.mark.parametrize("n_top", [0, 3])
def test_echo_with_logprobs_scores_the_prompt(n_top: int) -> None:
    (prepared,) = complete(echo=True, logprobs=n_top)
    assert prepared.request.prompt_logprobs is True
    assert prepared.request.n_prompt_top_tokens == n_top


def test_logprobs_without_echo_score_no_prompt() -> None:
    (prepared,) = complete(logprobs=3)
    assert prepared.request.prompt_logprobs is False
    assert prepared.request.n_prompt_top_tokens == 0


def test_echo_with_max_tokens_0_shows_nothing_generated() -> None:
    (prepared,) = complete(echo=True, max_tokens=0)
    assert prepared.echo_only is True
    assert prepared.request.stopping.max_new_tokens == 1


@pytest.mark.parametrize("fields", [{}, {"max_tokens": 1}])
def test_echo_with_tokens_to_generate_shows_them(fields: dict[str, object]) -> None:
    assert complete(echo=True, **fields)[0].echo_only is False


def test_max_tokens_0_without_echo_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"`max_new_tokens` must be strictly positive"):
        complete(max_tokens=0)


def test_echo_around_a_gap_has_no_logprobs() -> None:
    assert complete(echo=True, suffix="c")[0].prompt == "ab"
    with pytest.raises(ValidationError, match=r"not supported with both `echo` and") as caught:
        complete(echo=True, suffix="c", logprobs=0)
    assert caught.value.field == "suffix"


# --- native ---------------------------------------------------------------------------------------


def generate(**parameters: object) -> PreparedGeneration:
    body = json.dumps({"inputs": "a", "parameters": parameters}).encode()
    (prepared,) = Validator(LIMITS, ByteTokenizer()).generate(
        parse(GenerateRequest, body), streaming=False
    )
    return prepared


def test_decoder_input_details_score_the_prompt_and_imply_details() -> None:
    prepared = generate(decoder_input_details=True)
    assert (prepared.prefill, prepared.details) == (True, True)
    assert prepared.request.prompt_logprobs is True


def test_details_alone_do_not_score_the_prompt() -> None:
    prepared = generate(details=True)
    assert (prepared.prefill, prepared.details) == (False, True)
    assert prepared.request.prompt_logprobs is False


@pytest.mark.parametrize("do_sample", [True, False])
def test_watermark_reaches_the_engine_whether_greedy_or_not(do_sample: bool) -> None:
    assert generate(watermark=True, do_sample=do_sample).request.sampling.watermark is True
    assert generate(do_sample=do_sample).request.sampling.watermark is False


@pytest.mark.parametrize("temperature", [0, 1])
def test_watermark_of_a_completion_reaches_the_engine(temperature: float) -> None:
    (prepared,) = complete(watermark=True, temperature=temperature)
    assert prepared.request.sampling.watermark is True
