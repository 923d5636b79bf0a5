"""Known requests, and what each of them changes on the metrics page: every counter, every count and
every sum, and nothing else (contract 5, each thing counted once by decisions).

The engine is scripted: an answer has three tokens and its times are those of ``fakes.engine``.
What only a real engine feeds, the metrics of batches, is in ``tests/e2e/test_metrics.py``.
"""

import json
from collections import Counter
from collections.abc import Mapping

import attrs
import pytest
import trio
import trio.testing
from fakes.engine import FakeEngine, fails_after
from fakes.raw_client import post

from tgi_llama.errors import (
    EngineDead,
    GenerationError,
    IncompleteGeneration,
    ShuttingDown,
    TemplateError,
)
from tgi_llama.metrics import FailureKind

TOTAL_S, VALIDATION_S, QUEUE_S, INFERENCE_S = 1.5, 0.5, 0.25, 0.75
N_GENERATED = 3
MAX_NEW = 10

TEN = {"parameters": {"max_new_tokens": MAX_NEW}}
PROMPT = {"inputs": "hi", **TEN}
N_PROMPT = 3
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": MAX_NEW}
N_CHAT = len("user: hi\nassistant:")
THREE = {"prompt": ["a", "bc", "def"], "max_tokens": MAX_NEW}
N_THREE = (2, 3, 4)
BEST_OF = {"inputs": "hi", "parameters": {**TEN["parameters"], "best_of": 2, "do_sample": True}}
INFER = {
    "id": "1",
    "inputs": [{"name": "a", "shape": [2], "datatype": "BYTES", "data": [104, 105]}],
}


def counted(
    *,
    err: str | None = None,
    n_prompts: tuple[int, ...] = (),
    max_new: int = MAX_NEW,
    n_finished: int = 0,
) -> Counter[str]:
    """One request with a generation of each length of prompt, of which ``n_finished`` are part of
    its answer."""
    changes = Counter({"tgi_request_count": 1})
    changes[f'tgi_request_failure{{err="{err}"}}' if err else "tgi_request_success"] += 1
    for n_prompt in n_prompts:
        _observe(changes, "input_length", n_prompt)
        _observe(changes, "max_new_tokens", max_new)
    for _ in range(n_finished):
        _observe(changes, "generated_tokens", N_GENERATED)
        _observe(changes, "duration", TOTAL_S)
        _observe(changes, "validation_duration", VALIDATION_S)
        _observe(changes, "queue_duration", QUEUE_S)
        _observe(changes, "inference_duration", INFERENCE_S)
        _observe(changes, "mean_time_per_token_duration", INFERENCE_S / N_GENERATED)
    return changes


def answered(*n_prompts: int, max_new: int = MAX_NEW, n_shown: int | None = None) -> Counter[str]:
    n_finished = len(n_prompts) if n_shown is None else n_shown
    return counted(n_prompts=n_prompts, max_new=max_new, n_finished=n_finished)


def _observe(changes: Counter[str], name: str, value: float) -> None:
    changes[f"tgi_request_{name}_count"] += 1
    changes[f"tgi_request_{name}_sum"] += value  # type: ignore[assignment]  # durations


NOTHING: Counter[str] = Counter()


@attrs.frozen
class Case:
    """One request and what it changes."""

    name: str
    path: str
    payload: object
    status: int
    changes: Counter[str]
    method: str = "POST"
    headers: Mapping[str, str] = attrs.field(factory=dict)


ANSWERED = [
    Case("generate", "/generate", PROMPT, 200, answered(N_PROMPT)),
    Case("no limit", "/generate", {"inputs": "hi"}, 200, answered(N_PROMPT, max_new=197)),
    Case("native stream", "/generate_stream", PROMPT, 200, answered(N_PROMPT)),
    Case("compat", "/", PROMPT, 200, answered(N_PROMPT)),
    Case("compat stream", "/", {**PROMPT, "stream": True}, 200, answered(N_PROMPT)),
    Case("best_of", "/generate", BEST_OF, 200, answered(N_PROMPT, N_PROMPT, n_shown=1)),
    Case("chat", "/v1/chat/completions", CHAT, 200, answered(N_CHAT)),
    Case("chat stream", "/v1/chat/completions", {**CHAT, "stream": True}, 200, answered(N_CHAT)),
    Case("chat n", "/v1/chat/completions", {**CHAT, "n": 2}, 200, answered(N_CHAT, N_CHAT)),
    Case(
        "chat n stream",
        "/v1/chat/completions",
        {**CHAT, "n": 2, "stream": True},
        200,
        answered(N_CHAT, N_CHAT),
    ),
    Case("prompts", "/v1/completions", THREE, 200, answered(*N_THREE)),
    Case("prompts stream", "/v1/completions", {**THREE, "stream": True}, 200, answered(*N_THREE)),
    Case(
        "prompts n",
        "/v1/completions",
        {**THREE, "prompt": ["a", "bc"], "n": 2},
        200,
        answered(2, 2, 3, 3),
    ),
    Case(
        "prompts best_of",
        "/v1/completions",
        {**THREE, "prompt": ["a", "bc"], "n": 1, "best_of": 3},
        200,
        answered(2, 2, 2, 3, 3, 3, n_shown=2),
    ),
    Case("vertex", "/vertex", {"instances": [PROMPT, CHAT]}, 200, answered(N_PROMPT, N_CHAT)),
    Case("invocations", "/invocations", PROMPT, 200, answered(N_PROMPT)),
    Case("invocations chat", "/invocations", CHAT, 200, answered(N_CHAT)),
    Case(
        "kserve",
        "/v2/models/m/versions/1/infer",
        {**INFER, **TEN, "outputs": [{"name": "a"}]},
        200,
        answered(N_PROMPT),
    ),
]

REFUSED = [
    Case("not JSON", "/generate", b"{", 400, counted(err="parse")),
    Case("wrong shape", "/generate_stream", {"inputs": 1}, 422, counted(err="parse")),
    Case("no JSON at all", "/", PROMPT, 415, counted(err="parse"), headers={"content-type": "a/b"}),
    Case("too large", "/v1/completions", {"prompt": "x" * 3000}, 413, counted(err="parse")),
    Case("empty", "/generate", {"inputs": ""}, 422, counted(err="validation")),
    Case(
        "rule c",
        "/generate",
        {**PROMPT, "parameters": {"best_of": 9}},
        422,
        counted(err="validation"),
    ),
    Case("suffix", "/v1/completions", {**THREE, "suffix": "x"}, 422, counted(err="validation")),
    Case("prompts", "/v1/completions", {"prompt": ["a"] * 5}, 422, counted(err="validation")),
    Case("vertex", "/vertex", {"instances": []}, 422, counted(err="validation")),
    Case(
        "lengths",
        "/v2/models/m/versions/1/infer",
        {**INFER, "outputs": []},
        422,
        counted(err="validation"),
    ),
    Case(
        "tool",
        "/v1/chat/completions",
        {
            **CHAT,
            "tools": [{"type": "function", "function": {"name": "a", "parameters": {}}}],
            "tool_choice": "b",
        },
        422,
        counted(err="tool"),
    ),
]

UNCOUNTED = [
    Case("tokenize", "/tokenize", PROMPT, 200, NOTHING),
    Case("chat_tokenize", "/chat_tokenize", CHAT, 200, NOTHING),
    Case("tokenize wrong", "/tokenize", {}, 422, NOTHING),
    Case("info", "/info", None, 200, NOTHING, method="GET"),
    Case("health", "/health", None, 200, NOTHING, method="GET"),
    Case("metrics", "/metrics", None, 200, NOTHING, method="GET"),
    Case("models", "/v1/models", None, 200, NOTHING, method="GET"),
    Case("no route", "/nothing", PROMPT, 404, NOTHING),
    Case("no method", "/generate", None, 405, NOTHING, method="GET"),
    Case("preflight", "/generate", None, 200, NOTHING, method="OPTIONS"),
]

REPLAY = [*ANSWERED, *REFUSED, *UNCOUNTED]


def numbers(site) -> dict[str, float]:
    """All samples of the page but buckets and gauges."""
    found: dict[str, float] = {}
    kind = ""
    for line in site.services.metrics.render().decode().splitlines():
        if line.startswith("# TYPE"):
            kind = line.split()[3]
        elif line and line[0] != "#" and kind != "gauge" and "_bucket{" not in line:
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


async def changes_of(site, act) -> dict[str, float]:
    before = numbers(site)
    await act()
    after = numbers(site)
    return {
        name: value - before.get(name, 0.0)
        for name, value in after.items()
        if value != before.get(name, 0.0)
    }


async def play(site, case: Case) -> None:
    body = case.payload if isinstance(case.payload, bytes) else json.dumps(case.payload).encode()
    response = await site.client().open(
        case.path,
        method=case.method,
        headers={"content-type": "application/json", **case.headers},
        data=b"" if case.payload is None else body,
    )
    await response.get_data()
    assert response.status_code == case.status


def ids(cases: list[Case]) -> list[str]:
    return [f"{case.path} {case.name}" for case in cases]


@pytest.mark.parametrize("case", REPLAY, ids=ids(REPLAY))
async def test_request_changes_exactly_its_numbers(make_site, case):
    site = await make_site(payload_limit_bytes=2000)
    assert await changes_of(site, lambda: play(site, case)) == pytest.approx(dict(case.changes))


async def test_replay_of_all_requests_adds_up(make_site):
    site = await make_site(payload_limit_bytes=2000)

    async def replay() -> None:
        for case in REPLAY:
            await play(site, case)

    expected = sum((case.changes for case in REPLAY), NOTHING)
    assert await changes_of(site, replay) == pytest.approx(dict(expected))
    failures = [value for name, value in numbers(site).items() if "tgi_request_failure" in name]
    n_ended = site.metric("tgi_request_success") + sum(failures)
    assert site.metric("tgi_request_count") == n_ended == len([*ANSWERED, *REFUSED])


# --- failures that a request cannot bring about by itself ---


@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
@pytest.mark.parametrize(
    ("error", "err"),
    [
        (GenerationError("x"), "generation"),
        (IncompleteGeneration("x"), "incomplete"),
        (EngineDead("x"), "unavailable"),
        (RuntimeError("x"), "internal"),
    ],
)
async def test_generation_that_fails_after_a_token(make_site, path, error, err):
    site = await make_site(FakeEngine(fails_after("a", error=error)))
    changed = await changes_of(site, lambda: site.client().post(path, json=PROMPT))
    assert changed == dict(counted(err=err, n_prompts=(N_PROMPT,)))


async def test_best_of_with_one_branch_that_fails(make_site):
    def script(_request):
        good = FakeEngine().script(_request)
        return (
            fails_after("a", error=GenerationError("x"))(_request) if site.engine.requests else good
        )

    site = await make_site(FakeEngine(script))
    changed = await changes_of(site, lambda: site.client().post("/generate", json=BEST_OF))
    assert changed == dict(counted(err="generation", n_prompts=(N_PROMPT, N_PROMPT)))


@pytest.mark.parametrize("error", [ShuttingDown("x"), EngineDead("x")])
async def test_engine_that_takes_nothing_more(make_site, error):
    site = await make_site(FakeEngine(closed=error))
    changed = await changes_of(site, lambda: site.client().post("/generate", json=PROMPT))
    assert changed == dict(counted(err="unavailable", n_prompts=(N_PROMPT,)))


async def test_server_that_is_draining(make_site):
    site = await make_site()
    site.admission.start_draining()
    changed = await changes_of(site, lambda: site.client().post("/generate", json=PROMPT))
    assert changed == dict(counted(err="unavailable"))


async def test_server_without_a_permit_left(make_site):
    site = await make_site(max_concurrent_requests=3)
    with site.admission.permit():
        changed = await changes_of(site, lambda: site.client().post("/v1/completions", json=THREE))
    assert changed == dict(counted(err="overloaded"))


async def test_template_that_refuses(make_site):
    def refuse() -> None:
        raise TemplateError("no")

    site = await make_site()
    site.tokenizer.on_encode = refuse
    changed = await changes_of(site, lambda: site.client().post("/v1/chat/completions", json=CHAT))
    assert changed == dict(counted(err="template"))


async def test_key_that_is_missing(make_site):
    site = await make_site(api_keys=("secret",))
    changed = await changes_of(site, lambda: site.client().post("/vertex", json=PROMPT))
    assert changed == dict(counted(err="auth"))


async def test_client_that_leaves(make_site):
    site = await make_site(FakeEngine(gate=trio.Event()))

    async def leave() -> None:
        client = await site.connect()
        await client.send(post("/v1/completions", THREE))
        await site.engine.opened.wait()
        await client.reset()
        await site.engine.all_closed.wait()
        await site.admission.wait_idle()
        await trio.testing.wait_all_tasks_blocked()

    changed = await changes_of(site, leave)
    assert changed == dict(counted(err="dropped", n_prompts=N_THREE))


def test_every_kind_of_failure_is_replayed():
    """A kind that is added needs a request here."""
    replayed = {name for case in REFUSED for name in case.changes if "failure" in name}
    by_itself = {name.split('"')[1] for name in replayed}
    others = {"generation", "incomplete", "unavailable", "internal"}
    others |= {"overloaded", "template", "auth", "dropped"}
    assert by_itself | others == {kind.value for kind in FailureKind}


# --- the queue ---


async def test_generations_are_queued_until_a_step_has_taken_them(make_site, nursery):
    site = await make_site(FakeEngine(gate=trio.Event()))
    nursery.start_soon(play, site, Case("", "/v1/completions", THREE, 200, NOTHING))
    await site.engine.opened.wait()
    assert site.metric("tgi_queue_size") == 3
    assert site.metric("tgi_request_success") == 0
    site.engine.gate.set()
    await site.admission.wait_idle()
    await trio.testing.wait_all_tasks_blocked()
    assert site.metric("tgi_request_success") == 1
