"""Prompt logprobs on the real built-in model, against one decode for each token."""

from collections.abc import Sequence

import numpy as np
import pytest
from fakes.native import Load, Loaded
from fakes.native_play import generate, native_request, play, prompts

from tgi_llama.engine.model_runner import Batch, Run, SlotId
from tgi_llama.errors import InvalidBatch
from tgi_llama.generation import GenerationRequest, PromptToken

LAYOUTS = pytest.mark.parametrize("layout", ["streams", "unified"])

TOLERANCE = 0.5
"""With chunks of 64 tokens and more llama.cpp takes another attention kernel, and in the unified
layout attention runs over other cells: logprobs then differ by up to 0.23. Otherwise they are equal
to 1e-7. Scores of the wrong tokens differ by nats."""

MEAN_TOLERANCE = 0.1


def a_request(loaded: Loaded, text: str, *, max_new_tokens: int = 2) -> GenerationRequest:
    return native_request(loaded, text, max_new_tokens=max_new_tokens, prompt_logprobs=True)


def a_long_prompt() -> str:
    return "".join(prompts(4))


def reference(loaded: Loaded, request: GenerationRequest) -> list[float]:
    """The logprobs of all tokens but the first, in double precision."""
    logprobs = []
    for i, token in enumerate(request.prompt_ids[:-1]):
        tokens = np.array([token], dtype=np.int32)
        loaded.runner.decode(Batch(tokens, (Run(SlotId(0), i, 1, n_outputs=1),)))
        row = loaded.runner.logits(0).astype(np.float64)
        logprobs.append(float(row[request.prompt_ids[i + 1]] - np.log(np.exp(row).sum())))
    loaded.runner.clear(SlotId(0))
    return logprobs


def assert_close(scored: Sequence[PromptToken], expected: Sequence[float]) -> None:
    assert scored[0].logprob is None
    found = np.array([token.logprob for token in scored[1:]])
    off = np.abs(found - np.array(expected))
    assert off.max() < TOLERANCE
    assert off.mean() < MEAN_TOLERANCE


@LAYOUTS
@pytest.mark.parametrize("n_physical", [8, 33, 512])
def test_prompt_logprobs_are_those_of_one_decode_per_token(
    load: Load, layout: str, n_physical: int
) -> None:
    """Prompts shorter and longer than the physical batch."""
    with load(kv_layout=layout, max_physical_batch_total_tokens=n_physical) as loaded:
        request = a_request(loaded, a_long_prompt())
        assert 33 < len(request.prompt_ids) < 512
        expected = reference(loaded, request)
        ((first, *_),) = generate(loaded, [request])
    assert [token.id for token in first.prompt_tokens] == list(request.prompt_ids)
    assert_close(first.prompt_tokens, expected)


@pytest.mark.parametrize("n_rows", [1, 5, 32])
def test_prompt_longer_than_the_rows_comes_in_chunks_of_them(
    load: Load, n_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with load() as loaded:
        row_bytes = 4 * loaded.vocab.n_vocab
        request = a_request(loaded, a_long_prompt())
        expected = reference(loaded, request)
    monkeypatch.setattr("tgi_llama.llama.context_params.PROMPT_ROWS_BYTES", n_rows * row_bytes)
    with load() as loaded:
        assert loaded.runner.max_outputs == loaded.plan.n_sequences + n_rows
        assert len(request.prompt_ids) > loaded.runner.max_outputs
        ((first, *_),) = generate(loaded, [request])
    assert_close(first.prompt_tokens, expected)


@LAYOUTS
def test_prompt_logprobs_beside_streams_and_each_other_are_those_of_each_alone(
    load: Load, layout: str
) -> None:
    with load(kv_layout=layout, max_batch_size=6) as loaded:
        scored = [a_request(loaded, text, max_new_tokens=12) for text in prompts(4)]
        plain = [native_request(loaded, text, max_new_tokens=12) for text in prompts(6)[4:]]
        expected = [reference(loaded, request) for request in scored]
        alone = [generate(loaded, [request])[0] for request in plain]
        played = play(loaded, [[plain[0]], [scored[0]], scored[1:2], [plain[1]], *zip(scored[2:])])
    for index, i in enumerate((1, 2, 4, 5)):
        assert_close(played.events[i][0].prompt_tokens, expected[index])
    for index, i in enumerate((0, 3)):
        first = played.events[i][0]
        assert first.prompt_tokens == ()
        assert first.token.id == alone[index][0].token.id


@LAYOUTS
def test_branches_share_prompt_logprobs(load: Load, layout: str) -> None:
    with load(kv_layout=layout, max_batch_size=2) as loaded:
        request = a_request(loaded, prompts(7)[6])
        expected = reference(loaded, request)
        played = play(loaded, [[request] * 3])
    for events in played.events:
        assert_close(events[0].prompt_tokens, expected)
    assert played.n_prefilled == len(request.prompt_ids) + 2, "each its last token"


def test_prompt_texts_add_up_to_the_prompt(load: Load) -> None:
    with load() as loaded:
        text = "Der Müller sagt: 你好 🙂\n  end"
        ((first, *_),) = generate(loaded, [a_request(loaded, text)])
        is_control = loaded.vocab.is_control
        shown = [token.text for token in first.prompt_tokens if not is_control(token.id)]
    assert "".join(shown) == text


def test_logits_of_every_row_that_was_asked_for_are_there(load: Load) -> None:
    """The output buffer grows from one row a slot, and rows come from two runs."""
    tokens = list(range(10, 22))
    with load() as loaded:
        one_by_one = []
        for i, token in enumerate(tokens):
            one = Batch(np.array([token], np.int32), (Run(SlotId(0), i, 1, n_outputs=1),))
            loaded.runner.decode(one)
            one_by_one.append(loaded.runner.logits(0).copy())
        loaded.runner.clear(SlotId(0))
        runs = (Run(SlotId(0), 0, 12, n_outputs=9), Run(SlotId(1), 0, 12, n_outputs=12))
        loaded.runner.decode(Batch(np.array(tokens * 2, np.int32), runs))
        for i in range(12):
            assert np.allclose(loaded.runner.logits(12 + i), one_by_one[i], atol=TOLERANCE)
            if i < 3:
                with pytest.raises(IndexError, match=f"row {i}"):
                    loaded.runner.logits(i)
            else:
                assert np.allclose(loaded.runner.logits(i), one_by_one[i], atol=TOLERANCE)
        loaded.runner.decode(Batch(np.array([22], np.int32), (Run(SlotId(1), 12, 1, n_outputs=1),)))
        assert loaded.runner.logits(0).shape == (loaded.vocab.n_vocab,)


def test_more_outputs_than_there_are_rows_are_refused(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp ends the process on this."""
    monkeypatch.setattr("tgi_llama.llama.context_params.PROMPT_ROWS_BYTES", 0)
    with load(max_batch_size=2) as loaded:
        assert loaded.runner.max_outputs == 3
        tokens = np.arange(10, 14, dtype=np.int32)
        with pytest.raises(InvalidBatch, match="4 outputs in a batch of at most 3"):
            loaded.runner.decode(Batch(tokens, (Run(SlotId(0), 0, 4, n_outputs=4),)))
        with pytest.raises(InvalidBatch, match="5 outputs of 4 tokens"):
            loaded.runner.decode(Batch(tokens, (Run(SlotId(0), 0, 4, n_outputs=5),)))
        loaded.runner.decode(Batch(tokens, (Run(SlotId(0), 0, 4, n_outputs=3),)))
