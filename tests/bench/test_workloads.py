"""What each workload sends, and when."""

import itertools
from collections import Counter

import pytest
import trio
from fakes.measuring import measure
from fakes.scripted_server import Answer, Received, ScriptedServer, playing

from tgi_llama.bench.load import Closed, Open
from tgi_llama.bench.plan import Measurement
from tgi_llama.bench.words import PromptSource
from tgi_llama.bench.workloads import WORKLOADS


def _one_round(measurement: Measurement):  # type: ignore[no-untyped-def]
    one = measurement.current
    assert one is not None
    assert one.is_complete
    return one


def _common_words(prompts: list[str]) -> int:
    columns = zip(*(prompt.split() for prompt in prompts), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))


async def test_own_prompts_are_all_different_and_of_the_size() -> None:
    async with playing(ScriptedServer()) as server:
        measurement = await measure(server, load=Closed(4), n_rounds=2)

    prompts = [received.prompt for received in server.received]
    assert len(prompts) == len(set(prompts)) == 16
    assert {len(prompt.split()) for prompt in prompts} == {64}
    assert {received.n_asked for received in server.received} == {64}
    assert all(len(sample.event_times) == 64 for sample in _one_round(measurement).samples)


async def test_own_prompts_keep_as_many_in_flight_as_there_are_clients() -> None:
    gate = trio.Event()

    def decide(_received: Received) -> Answer:
        if len(server.received) == 3:
            gate.set()
        return Answer(gates={0: gate})

    server = ScriptedServer(decide)
    async with playing(server):
        await measure(server, load=Closed(3), n_requests=7)

    assert server.most_running == 3
    assert len(server.received) == 7


@pytest.mark.parametrize("api", ["openai", "tgi"])
async def test_requests_are_greedy_and_streamed_in_either_api(api: str) -> None:
    async with playing(ScriptedServer()) as server:
        await measure(server, api=api, n_requests=1)

    (received,) = server.received
    if api == "openai":
        expected = {"temperature": 0, "stream": True, "ignore_eos": True, "model": "played"}
        assert received.path == "/v1/completions"
        assert expected.items() <= received.body.items()
    else:
        assert received.path == "/generate_stream"
        assert received.body["parameters"] == {"max_new_tokens": 64, "do_sample": False}


async def test_shared_prefix_is_shared_in_a_round_and_new_in_the_next() -> None:
    async with playing(ScriptedServer()) as server:
        await measure(server, workload="shared-prefix", n_rounds=2)

    prompts = [received.prompt for received in server.received]
    first, second = prompts[:24], prompts[24:]
    assert len(second) == 24
    assert len(set(prompts)) == 48
    assert {len(prompt.split()) for prompt in prompts} == {1016}
    assert 1000 <= _common_words(first) < 1016
    assert 1000 <= _common_words(second) < 1016
    assert _common_words(prompts) < 100
    assert server.most_running == 8


async def test_shared_prefix_warm_does_not_count_its_first_request() -> None:
    async with playing(ScriptedServer()) as server:
        measurement = await measure(server, workload="shared-prefix-warm")

    assert len(server.received) == 25
    assert _common_words([received.prompt for received in server.received]) >= 1000
    assert len(_one_round(measurement).samples) == 24


async def test_chat_history_grows_by_what_the_server_answered() -> None:
    async with playing(ScriptedServer()) as server:
        measurement = await measure(server, workload="chat", n_clients=2, n_turns=3, n_tokens=4)

    chats = [received.body["messages"] for received in server.received]
    assert {received.path for received in server.received} == {"/v1/chat/completions"}
    assert sorted(len(chat) for chat in chats) == [1, 1, 3, 3, 5, 5]  # type: ignore[arg-type]
    answers = [
        message["content"]
        for chat in chats
        for message in chat  # type: ignore[attr-defined]
        if message["role"] == "assistant"
    ]
    assert set(answers) == {" w0 w1 w2 w3"}
    longest = [chat for chat in chats if len(chat) == 5]  # type: ignore[arg-type]
    for chat in longest:
        assert chat[:3] in chats  # type: ignore[index]
    groups = Counter(sample.group for sample in _one_round(measurement).samples)
    assert groups == {"first turn": 2, "later turns": 4}


async def test_chat_ends_where_an_answer_fails() -> None:
    async with playing(ScriptedServer(lambda _: Answer(status=500, error="no"))) as server:
        await measure(server, workload="chat", n_clients=2)

    assert len(server.received) == 2


async def test_long_prompts_arrive_while_every_steady_stream_runs() -> None:
    """Steady streams stop in the middle until the long prompts are there."""
    all_arrived, arrivals = trio.Event(), []

    def decide(received: Received) -> Answer:
        if len(received.prompt.split()) < 1000:
            return Answer(gates={20: all_arrived})
        arrivals.append(server.n_running)
        if len(arrivals) == 4:
            all_arrived.set()
        return Answer()

    server = ScriptedServer(decide)
    async with playing(server):
        measurement = await measure(
            server, workload="long-arrivals", n_tokens=40, n_undisturbed=20, n_long_tokens=5
        )

    one = _one_round(measurement)
    groups = Counter(sample.group for sample in one.samples)
    assert groups == {"steady": 6, "long": 4}
    assert len(arrivals) == 4
    assert min(arrivals) > 6
    before, during = one.phases
    assert (before.name, during.name) == ("undisturbed", "during")
    assert before.ended == during.started
    assert all(sample.due >= before.ended for sample in one.samples if sample.group == "long")
    rows = {row.name: row for row in measurement.summary(0, one.server).rows}  # type: ignore[union-attr]
    assert rows["steady, undisturbed"].inter_token_s is not None
    assert rows["long"].ttft_s is not None


async def test_long_prompts_arrive_even_where_the_steady_streams_fail() -> None:
    server = ScriptedServer(lambda _received: Answer(status=503, error="full"))
    async with playing(server):
        measurement = await measure(server, workload="long-arrivals")

    assert len(_one_round(measurement).samples) == 10


async def test_bully_goes_on_until_the_tiny_requests_are_through() -> None:
    async with playing(ScriptedServer()) as server:
        measurement = await measure(server, workload="bully", n_requests=12)

    sizes = Counter(len(received.prompt.split()) for received in server.received)
    assert sizes[8] == 12
    assert sizes[1500] == len(server.received) - 12 >= 1
    groups = [sample.group for sample in _one_round(measurement).samples]
    assert groups.count("tiny") == 12


async def test_bully_stops_where_its_prompts_are_refused() -> None:
    def decide(received: Received) -> Answer:
        return Answer(status=422, error="too long") if len(received.prompt) > 1000 else Answer()

    async with playing(ScriptedServer(decide)) as server:
        await measure(server, workload="bully")

    assert sum(len(received.prompt) > 1000 for received in server.received) == 1


async def test_fan_out_has_all_clients_at_once_and_loses_no_token() -> None:
    gate = trio.Event()

    def decide(_received: Received) -> Answer:
        if len(server.received) == 200:
            gate.set()
        return Answer(gates={1: gate})

    server = ScriptedServer(decide)
    async with playing(server):
        measurement = await measure(server, workload="fan-out")

    assert server.most_running == 200
    summary = measurement.summary(0, _one_round(measurement).server)
    assert summary is not None
    assert (summary.n_finished, summary.failures, summary.n_lost_tokens) == (200, {}, 0)
    assert summary.n_text_events == 200 * 32


async def test_open_loop_with_a_fixed_rate_is_due_at_equal_distances() -> None:
    gate = trio.Event()

    def decide(_received: Received) -> Answer:
        if len(server.received) == 8:  # an open loop does not wait for answers
            gate.set()
        return Answer(gates={0: gate})

    server = ScriptedServer(decide)
    async with playing(server):
        measurement = await measure(server, load=Open(500, "fixed"), n_requests=8)

    one = _one_round(measurement)
    assert [sample.due - one.started for sample in one.samples] == pytest.approx(
        [number / 500 for number in range(8)]
    )
    assert all(sample.sent is not None and sample.sent >= sample.due for sample in one.samples)


async def test_open_loop_with_poisson_arrivals_keeps_the_mean_rate() -> None:
    async with playing(ScriptedServer()) as server:
        measurement = await measure(
            server, load=Open(2000, "poisson"), n_requests=200, n_tokens=1, n_words=1
        )

    dues = [sample.due for sample in _one_round(measurement).samples]
    gaps = [after - before for before, after in itertools.pairwise(dues)]
    assert sum(gaps) / len(gaps) == pytest.approx(1 / 2000, rel=0.3)
    assert max(gaps) > 3 * min(gaps)


async def test_duration_counts_instead_of_a_number() -> None:
    async with playing(ScriptedServer()) as server:
        await measure(server, load=Open(100, "fixed"), duration_s=0.05, n_requests=1)

    assert len(server.received) == 5


async def test_comparison_alternates_and_gives_both_servers_the_same_prompts() -> None:
    order: list[str] = []
    first = ScriptedServer(lambda _received: order.append("A") or Answer())
    second = ScriptedServer(lambda _received: order.append("B") or Answer())
    async with playing(first), playing(second):
        measurement = await measure(first, second, n_rounds=3, n_requests=1, load=Closed(1))

    assert "".join(order) == "ABBAAB"
    assert {one.prompt for one in first.received} == {one.prompt for one in second.received}
    assert len({one.prompt for one in first.received}) == 3
    assert len(measurement.pairs_of(0)) == 3


def test_prompts_of_a_seed_are_the_same_and_of_another_are_not() -> None:
    assert PromptSource("a").words(50) == PromptSource("a").words(50)
    assert PromptSource("a").words(50) != PromptSource("b").words(50)


def test_workloads_of_the_issue_are_there() -> None:
    assert set(WORKLOADS) == {
        "own-prompts", "shared-prefix", "shared-prefix-warm", "chat", "long-arrivals", "bully",
        "fan-out",
    }  # fmt: skip
