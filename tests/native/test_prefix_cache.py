"""The prefix cache on real models: every request gives what it gives without the cache.

Cells that were computed in other chunks differ in the last digits, so texts are compared up to the
first token that was nearly another one.
"""

import random
from collections.abc import Iterator, Sequence

import attrs
import pytest
from fakes.memory_walk import EXACT, random_tokens
from fakes.native import Load, Loaded, LoadTiny
from fakes.native_play import NEAR_TIE, NativePlay, native_request, play, prompts, sure_tokens

from tgi_llama.builtin.chat_format import PromptRenderer
from tgi_llama.builtin.corpus import held_out_examples
from tgi_llama.builtin.examples import Example, Message
from tgi_llama.engine.assembly import EngineOptions
from tgi_llama.generation import (
    CacheOutcome,
    GenerationRequest,
    RequestId,
    SamplingParameters,
    StoppingParameters,
    TokenEvent,
    TokenId,
)

OFF = EngineOptions(max_prefill_tokens=64, prefix_cache=False)

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a careful assistant of a small company. Answer in one short sentence. If somebody "
    "asks for a number, give the number alone. Never talk about other companies.",
    "Always tell the truth. If you cannot do something, say so. You know the days of the week, "
    "the names of the colours, and the numbers from one to one hundred. You are for testing.",
)
N_CHATS = 12
N_TURNS = 3


@attrs.frozen
class Reference:
    """A request, and what it gives with every token of its prompt computed."""

    request: GenerationRequest
    events: Sequence[TokenEvent]


def computed(loaded: Loaded, requests: Sequence[GenerationRequest]) -> list[Reference]:
    """Without the cache."""
    events = play(loaded, [[request] for request in requests], options=OFF).events
    return [Reference(*pair) for pair in zip(requests, events, strict=True)]


def asked(loaded: Loaded, text: str, rng: random.Random) -> GenerationRequest:
    return native_request(loaded, text, max_new_tokens=rng.randrange(4, 24), n_top_tokens=2)


def answered_prompts(loaded: Loaded) -> list[Reference]:
    """Questions of all the model's skills."""
    rng = random.Random(3)
    return computed(loaded, [asked(loaded, text, rng) for text in prompts(52)])


def answered_chats(loaded: Loaded) -> list[Reference]:
    """Every turn of chats that begin with one of three system prompts."""
    rng = random.Random(4)
    questions = [e.messages[-1] for e in held_out_examples(11, n_per_skill=3) if e.messages]
    chats = [
        [Message("system", SYSTEM_PROMPTS[number % 3]), questions[number]]
        for number in range(N_CHATS)
    ]
    found: list[Reference] = []
    for _ in range(N_TURNS):
        texts = [PromptRenderer().prompt(Example("test", "", (), tuple(chat))) for chat in chats]
        answered = computed(loaded, [asked(loaded, text, rng) for text in texts])
        for chat, one in zip(chats, answered, strict=True):
            answer = "".join(event.delta for event in one.events)
            chat += [Message("assistant", answer), rng.choice(questions)]
        found += answered
    return found


def n_compared(
    native: NativePlay, request_id: RequestId, reference: Reference, *, near_tie: float = NEAR_TIE
) -> int:
    """Asserts that the request gave what it should, and returns how many tokens could tell."""
    tokens = [event.token.id for event in native.events[request_id]]
    sure = sure_tokens(reference.events, near_tie=near_tie)
    if request_id in native.cancelled:
        sure = sure[: len(tokens)]
    assert tokens[: len(sure)] == sure
    return len(sure)


def play_mix(
    loaded: Loaded,
    mix: Sequence[Reference],
    rng: random.Random,
    options: EngineOptions,
    *,
    near_tie: float = NEAR_TIE,
) -> tuple[NativePlay, int]:
    """The requests arrive at random moments, and some are cancelled. Returns the number of tokens
    that were compared, too."""
    native = NativePlay(loaded, options)
    todo = list(mix)
    submitted: dict[RequestId, Reference] = {}
    while todo or not native.is_idle:
        while todo and (native.is_idle or rng.random() < 0.3):
            branches = [todo.pop()] * rng.choice([1, 1, 1, 2])
            ids = native.submit([one.request for one in branches])
            submitted.update(zip(ids, branches, strict=True))
        if rng.random() < 0.02:
            native.cancel(rng.choice(list(submitted)))
        native.step()
    counts = [n_compared(native, i, one, near_tie=near_tie) for i, one in submitted.items()]
    native.placement.slots.check_invariants()
    native.placement.cache.check_invariants()
    return native, sum(counts)


@pytest.fixture(scope="module")
def known(load: Load) -> Iterator[list[Reference]]:
    with load(max_batch_size=4) as loaded:
        yield answered_prompts(loaded) + 2 * answered_chats(loaded)


N_MIXES = 34
"""Of each of six contexts: 204 in all, in which 18,000 tokens are compared."""


@pytest.mark.parametrize("layout", ["streams", "unified"])
@pytest.mark.parametrize("n_slots", [2, 3, 4])
def test_random_mixes_give_what_they_give_without_the_cache(
    load: Load, known: list[Reference], n_slots: int, layout: str
) -> None:
    rng = random.Random(f"{layout} {n_slots}")
    n_tokens = n_cached = 0
    outcomes: set[CacheOutcome] = set()
    few_cells = {"max_batch_total_tokens": 1024} if layout == "unified" else {}
    with load(kv_layout=layout, max_batch_size=n_slots, **few_cells) as loaded:
        for _ in range(N_MIXES):
            options = EngineOptions(
                max_prefill_tokens=rng.choice([8, 24, 64]),
                cache_ram_bytes=rng.choice([0, 200_000, 10**8]),
            )
            mix = rng.sample(known, rng.randrange(4, 12))
            native, n = play_mix(loaded, mix, rng, options)
            n_tokens += n
            outcomes |= set(native.outcomes)
            n_cached += native.n_cached
    assert n_tokens > 2500
    assert n_cached > 5000
    assert {CacheOutcome.SLOT, CacheOutcome.HOST, CacheOutcome.UNKNOWN} <= outcomes


def test_oversubscribed_requests_give_what_they_give_alone(load: Load) -> None:
    """Three times as many cells are promised as there are: states are saved, and go on. That they
    are what they were to the last bit is tested in ``test_memory_kinds.py``; here other sequences
    in the batch change logprobs by up to 0.3, with enough cells for all as well."""
    with load(kv_layout="unified", max_batch_size=8, max_batch_total_tokens=512) as loaded:
        questions = prompts(40)[6:40:4]
        requests = [
            attrs.evolve(
                native_request(loaded, text, n_top_tokens=2),
                stopping=StoppingParameters(max_new_tokens=180, ignore_eos=True),
            )
            for text in questions
        ]
        needed = sorted(len(r.prompt_ids) + 180 for r in requests)
        assert sum(needed[:8]) > 3 * loaded.plan.n_cells
        alone = [reference for r in requests for reference in computed(loaded, [r])]
        native = NativePlay(loaded)
        ids = [request_id for request in requests for request_id in native.submit([request])]
        native.run_until_idle()
    counts = [n_compared(native, *pair) for pair in zip(ids, alone, strict=True)]
    assert sum(counts) > 250
    assert native.n_preempted > 4
    assert native.n_prefilled <= sum(len(r.prompt_ids) for r in requests), "nothing twice"
    assert native.placement.host.n_bytes == 0


# Memory that cannot be cut


ODD_MODELS = [
    (name, layout)
    for name in ("gemma3", "mamba", "jamba", "lfm2")
    for layout in ("streams", "unified")
]
"""A sliding window, a recurrent state, and two hybrids."""
SURE = 0.06
"""The largest difference that other chunks made to logits of these models was 0.013."""
END_OF_TURN = TokenId(2)


def random_chats(loaded: Loaded) -> list[Reference]:
    """Turns of chats of random words. The answer to one is part of the next."""
    rng = random.Random(5)
    systems = [(*random_tokens(rng, 50), END_OF_TURN) for _ in range(2)]
    found: list[Reference] = []
    chats = [systems[number % 2] for number in range(6)]
    for _ in range(3):
        chats = [(*chat, *random_tokens(rng, 20), END_OF_TURN, 5, 6) for chat in chats]
        requests = [
            GenerationRequest(
                prompt_ids=tuple(TokenId(token) for token in chat),
                sampling=SamplingParameters(greedy=True),
                stopping=StoppingParameters(max_new_tokens=rng.randrange(4, 12)),
                n_top_tokens=2,
            )
            for chat in chats
        ]
        answered = computed(loaded, requests)
        answers = [tuple(event.token.id for event in one.events) for one in answered]
        chats = [chat + answer for chat, answer in zip(chats, answers, strict=True)]
        found += answered
    return found


@pytest.mark.parametrize(("name", "layout"), ODD_MODELS)
def test_random_chats_where_memory_cannot_be_cut_give_what_they_give_without_the_cache(
    load_tiny: LoadTiny, name: str, layout: str
) -> None:
    rng = random.Random(f"{name} {layout}")
    n_tokens = n_cached = 0
    options: dict[str, object] = EXACT | {"max_batch_size": 3, "kv_layout": layout}
    with load_tiny(name, **options) as loaded:
        assert not loaded.runner.can_cut
        known = random_chats(loaded)
        for _ in range(6):
            engine_options = EngineOptions(
                max_prefill_tokens=rng.choice([8, 24, 64]),
                cache_ram_bytes=rng.choice([10**6, 10**8]),
            )
            mix = rng.sample(known, 9)
            native, n = play_mix(loaded, mix, rng, engine_options, near_tie=SURE)
            n_tokens += n
            n_cached += native.n_cached
            assert CacheOutcome.FAILED not in native.outcomes
    assert n_tokens > 150
    assert n_cached > 2000


@pytest.mark.parametrize(("name", "layout"), ODD_MODELS)
def test_next_turn_of_a_chat_computes_only_what_is_new(
    load_tiny: LoadTiny, name: str, layout: str
) -> None:
    options: dict[str, object] = EXACT | {"max_batch_size": 2, "kv_layout": layout}
    with load_tiny(name, **options) as loaded:
        native = NativePlay(loaded, EngineOptions(max_prefill_tokens=64, cache_ram_bytes=10**8))
        chat = (*random_tokens(random.Random(1), 120), END_OF_TURN)
        for turn in range(3):
            prompt = (*chat, *random_tokens(random.Random(turn), 12), END_OF_TURN)
            request = GenerationRequest(
                prompt_ids=tuple(TokenId(token) for token in prompt),
                sampling=SamplingParameters(greedy=True),
                stopping=StoppingParameters(max_new_tokens=8, ignore_eos=True),
            )
            before = native.n_prefilled
            (request_id,) = native.submit([request])
            native.run_until_idle()
            n_new = len(prompt) if turn == 0 else 1 + 12 + 1
            assert native.n_prefilled - before == n_new
            chat = (*prompt, *(event.token.id for event in native.events[request_id]))


def crowd(rng: random.Random) -> list[GenerationRequest]:
    """Requests that begin alike or not, and may need five times the cells that there will be."""
    stem = random_tokens(rng, 90)
    alike = [
        stem[: rng.choice([20, 60, 90])] + random_tokens(rng, rng.randrange(10, 100))
        for _ in range(8)
    ]
    own = [random_tokens(rng, rng.randrange(60, 250)) for _ in range(5)]
    chosen = [*alike, *own, *alike[:2]]
    rng.shuffle(chosen)
    return [
        GenerationRequest(
            prompt_ids=tuple(TokenId(token) for token in prompt),
            sampling=SamplingParameters(greedy=True),
            stopping=StoppingParameters(max_new_tokens=100, ignore_eos=True),
            n_top_tokens=2,
        )
        for prompt in chosen
    ]


@pytest.mark.parametrize("name", ["llama", "gemma3", "mamba", "jamba", "lfm2"])
@pytest.mark.parametrize(("cache_ram_bytes", "n_physical"), [(0, 512), (10**8, 32)])
def test_oversubscribed_memory_of_any_kind_gives_what_each_request_gives_alone(
    load_tiny: LoadTiny, name: str, cache_ram_bytes: int, n_physical: int
) -> None:
    """Windows and states are saved, copied and restored while the cells run out."""
    sizes = {"max_batch_size": 6, "max_batch_total_tokens": 512, "max_total_tokens": 420}
    limits = {"max_input_tokens": 300, "max_physical_batch_total_tokens": n_physical}
    requests = crowd(random.Random(1))
    with load_tiny(name, kv_layout="unified", **sizes, **limits, **EXACT) as loaded:
        needed = sum(len(r.prompt_ids) + 100 for r in requests)
        assert needed > 5 * loaded.plan.n_cells
        alone = [reference for r in requests for reference in computed(loaded, [r])]
        options = EngineOptions(max_prefill_tokens=64, cache_ram_bytes=cache_ram_bytes)
        native = NativePlay(loaded, options)
        ids = [request_id for request in requests for request_id in native.submit([request])]
        native.run_until_idle()
        counts = [n_compared(native, *pair, near_tie=SURE) for pair in zip(ids, alone, strict=True)]
        native.placement.slots.check_invariants()
        native.placement.cache.check_invariants()
        native.placement.ledger.check_invariants()
    assert sum(counts) > 25
    assert native.n_preempted > 3
    assert native.n_cached > 0
    assert native.placement.host.pinned_bytes == 0
