"""From a row of logits to the event of one token. Decode thread only."""

from collections.abc import Callable, Iterator
from time import perf_counter

import attrs

from tgi_llama.engine.model_runner import Logits, Vocabulary
from tgi_llama.engine.sampler import Scratch, likeliest, log_sum_exp
from tgi_llama.engine.sequence import Sequence
from tgi_llama.generation import (
    Finish,
    FinishReason,
    PromptToken,
    Timings,
    Token,
    TokenEvent,
    TokenId,
)


@attrs.frozen
class Choice:
    """A sequence's next token."""

    token: TokenId
    logprob: float | None
    top: tuple[tuple[TokenId, float], ...]
    """The likeliest tokens with their logprobs, where the request wants them."""


def choose(sequence: Sequence, logits: Logits, scratch: Scratch) -> Choice:
    """The next token by the sequence's sampler, within its grammar. Raises GenerationError as
    ``Sampler.choose``."""
    chosen = sequence.sampler.choose(logits, scratch, sequence.guide)
    if not sequence.wants_rows:
        return Choice(chosen, None, ())
    return scored(sequence, chosen, logits, scratch)


def scored(sequence: Sequence, chosen: TokenId, logits: Logits, scratch: Scratch) -> Choice:
    """The token with what the request wants to know of the row. Raises GenerationError where the
    largest logit is not a finite number."""
    request = sequence.request
    norm = log_sum_exp(logits, scratch)
    top: tuple[tuple[TokenId, float], ...] = ()
    if request.n_top_tokens > 0:
        ids = likeliest(logits, request.n_top_tokens, scratch)
        top = tuple((TokenId(int(i)), float(logits[i]) - norm) for i in ids)
    return Choice(chosen, float(logits[chosen]) - norm, top)


def forced_events(
    vocabulary: Vocabulary,
    sequence: Sequence,
    logits: Callable[[int], Logits],
    row: int,
    scratch: Scratch,
) -> Iterator[TokenEvent]:
    """The events of forced tokens before which all cells are computed now, or of all of them where
    no row has to be computed any more, neither for the text nor for the prompt; not beyond one that
    ends the sequence. ``row``: which of ``logits`` comes after the last cell. Raises
    GenerationError as ``scored``."""
    tokens, n_last = sequence.tokens, sequence.n_cached
    is_scored = sequence.scores is None or sequence.scores.is_complete
    if sequence.ends_forced and not sequence.wants_rows and is_scored:
        n_last = len(tokens)
    while sequence.n_forced and (place := len(tokens) - sequence.n_forced) <= n_last:
        choice = Choice(tokens[place], None, ())
        if sequence.wants_rows:
            before = logits(row - (sequence.n_cached - place))
            choice = scored(sequence, choice.token, before, scratch)
        if sequence.n_generated == 0:
            sequence.first_token = perf_counter()
        sequence.n_forced -= 1
        event = make_event(vocabulary, sequence, choice)
        yield event
        if event.finish is not None:
            return


def make_event(vocabulary: Vocabulary, sequence: Sequence, choice: Choice) -> TokenEvent:
    """The event of a token that the sequence has been given. Detokenises it and looks for stop
    strings; ``finish`` is set where it was the last one."""
    chosen = choice.token
    is_control = vocabulary.is_control
    top_tokens = tuple(
        Token(other, sequence.text.peek(other), value, is_control(other))
        for other, value in choice.top
    )
    piece = sequence.text.push(chosen)
    delta = piece.delta
    reason = _finish_reason(vocabulary, sequence, chosen, stopped=piece.stopped)
    finish = None
    if reason is not None:
        if not piece.stopped:
            delta += sequence.text.finish()
        finish = Finish(
            reason=reason,
            n_generated=sequence.n_generated,
            timings=_timings(sequence),
            n_cached_prompt_tokens=sequence.n_reused,
        )
    prompt_tokens: tuple[PromptToken, ...] = ()
    if sequence.scores is not None and sequence.n_generated == 1:
        prompt_tokens = sequence.scores.tokens
    return TokenEvent(
        token=Token(chosen, piece.token_text, choice.logprob, is_control(chosen)),
        top_tokens=top_tokens,
        delta=delta,
        finish=finish,
        prompt_tokens=prompt_tokens,
    )


def _finish_reason(
    vocabulary: Vocabulary, sequence: Sequence, chosen: TokenId, *, stopped: bool
) -> FinishReason | None:
    """End of generation comes before length, and length before a stop string. A grammar allows a
    token that ends the generation where the text is complete, so there it always does; and when
    nothing else may follow, the token that says so needs not be generated."""
    stopping, guide = sequence.request.stopping, sequence.guide
    if vocabulary.is_end_of_generation(chosen) and not (stopping.ignore_eos and guide is None):
        return FinishReason.EOS_TOKEN
    if guide is not None and sequence.n_forced == 0 and guide.is_complete:
        return FinishReason.EOS_TOKEN
    if sequence.n_generated >= stopping.max_new_tokens:
        return FinishReason.LENGTH
    return FinishReason.STOP_SEQUENCE if stopped else None


def _timings(sequence: Sequence) -> Timings:
    return Timings(
        submitted=sequence.submitted,
        started=sequence.started,
        first_token=sequence.first_token,
        finished=perf_counter(),
    )
