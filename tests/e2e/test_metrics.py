"""The metrics page of a real server after known requests: the engine's part, and what TGI's
dashboard asks for (contract 5.4 and 5.6)."""

import re

import attrs
import pytest
import trio
from fakes.raw_client import RawClient, get, post
from fakes.server_process import tgi_llama

PATIENCE_S = 30
"""Only ever spent by a test that fails."""

PROMPT = "1, 2, 3,"
SHORT = {"inputs": PROMPT, "parameters": {"max_new_tokens": 3, "details": True}}
N_NEW = 3

GRAFANA = [
    ("tgi_request_queue_duration_bucket", ""),
    ("tgi_batch_inference_duration_bucket", 'method="prefill"'),
    ("tgi_batch_inference_duration_bucket", 'method="decode"'),
    ("tgi_batch_forward_duration_bucket", 'method="decode"'),
    ("tgi_batch_decode_duration_bucket", 'method="decode"'),
    ("tgi_batch_filter_duration_bucket", 'method="decode"'),
    ("tgi_batch_concat_duration_bucket", 'method="decode"'),
    ("tgi_batch_concat", "reason="),
    ("tgi_request_generated_tokens_sum", ""),
    ("tgi_request_generated_tokens_count", ""),
    ("tgi_request_generated_tokens_bucket", ""),
    ("tgi_request_input_length_bucket", ""),
    ("tgi_request_success", ""),
    ("tgi_request_failure", "err="),
    ("tgi_request_mean_time_per_token_duration_bucket", ""),
    ("tgi_request_count", ""),
    ("tgi_queue_size", ""),
    ("tgi_batch_current_max_tokens", ""),
    ("tgi_batch_current_size", ""),
    ("tgi_request_skipped_tokens_bucket", ""),
    ("tgi_request_duration_bucket", ""),
]
"""Every query of ``assets/tgi_grafana.json``: a name, and a label that it selects or groups by."""


@attrs.frozen
class Page:
    """One reading of ``/metrics``."""

    samples: dict[str, float]

    def __getitem__(self, name: str) -> float:
        return self.samples[name]

    def failures(self) -> dict[str, float]:
        prefix = 'tgi_request_failure{err="'
        return {
            name.removeprefix(prefix).removesuffix('"}'): value
            for name, value in self.samples.items()
            if name.startswith(prefix)
        }

    def answers(self, name: str, label: str) -> bool:
        """Whether there is a sample of this name, with this label unless that is empty."""
        labels = rf"\{{.*{label}.*\}}" + ("" if label else "|")
        return any(re.fullmatch(rf"{name}({labels})", sample) for sample in self.samples)


async def read(client: RawClient) -> Page:
    response = await client.request(get("/metrics"))
    lines = response.body.decode().splitlines()
    values = (line.rpartition(" ") for line in lines if line and line[0] != "#")
    return Page({name: float(value) for name, _, value in values})


async def read_until(client: RawClient, name: str, value: float) -> Page:
    """The first page on which the sample has this value: when the server has taken what was sent
    to it before."""
    with trio.fail_after(PATIENCE_S):
        while True:
            page = await read(client)
            if page.samples.get(name) == value:
                return page


async def first_event(client: RawClient) -> None:
    _, status, _ = await client.read_head()
    assert status == 200
    await client.read_until(b"\n\n")


@pytest.mark.parametrize("layout", ["streams", "unified"])
async def test_replay_on_a_real_server(environment: dict[str, str], layout: str) -> None:
    options = ("--max-batch-size", "2", "--max-concurrent-requests", "4", "--kv-layout", layout)
    async with tgi_llama(*options, environment=environment, gated=True) as server:
        reader, *clients = [await server.connect() for _ in range(6)]

        # One runs, its first token is out, the next step waits at the gate.
        await clients[0].send(post("/generate_stream", SHORT))
        await server.release(".")
        await first_event(clients[0])
        page = await read(reader)
        assert page["tgi_batch_current_size"] == page["tgi_llama_slots_busy"] == 1
        assert page["tgi_queue_size"] == 0
        assert page["tgi_llama_generated_tokens"] == 1
        n_prompt = page["tgi_llama_prompt_tokens"]
        assert page["tgi_batch_current_max_tokens"] == n_prompt + N_NEW - 1
        assert page["tgi_batch_next_size_count"] == page["tgi_batch_next_size_sum"] == 1

        # Three more are asked for, one after the other, and one too many.
        for n_queued, path in ((1, "/generate_stream"), (2, "/generate"), (3, "/generate_stream")):
            await clients[n_queued].send(post(path, SHORT))
            page = await read_until(reader, "tgi_queue_size", n_queued)
        assert page["tgi_request_count"] == 4
        assert page["tgi_batch_current_size"] == 1
        response = await clients[4].request(post("/generate", SHORT))
        assert response.status == 429

        # The second joins the first: a batch is merged into the running one.
        await server.release("..")
        await first_event(clients[1])
        page = await read(reader)
        assert page['tgi_batch_concat{reason="chunking"}'] == 1
        assert page['tgi_batch_concat_duration_count{method="decode"}'] == 1

        # One leaves while it is queued, the others end.
        await clients[3].reset()
        await read_until(reader, 'tgi_request_failure{err="dropped"}', 1)
        await server.open_gate()
        await clients[0].read_until(b"0\r\n\r\n")
        await clients[1].read_until(b"0\r\n\r\n")
        details = (await clients[2].read_response()).json["details"]
        page = await read_until(reader, "tgi_batch_current_size", 0)
        assert details["generated_tokens"] == N_NEW

        assert page["tgi_request_count"] == 5
        assert page["tgi_request_success"] == 3
        assert page.failures() == {"overloaded": 1, "dropped": 1}
        assert page["tgi_request_input_length_count"] == 4
        assert page["tgi_request_input_length_sum"] == 4 * n_prompt
        assert page["tgi_request_max_new_tokens_sum"] == 4 * N_NEW
        for name in ("duration", "queue_duration", "generated_tokens"):
            assert page[f"tgi_request_{name}_count"] == 3
        assert page["tgi_request_generated_tokens_sum"] == 3 * N_NEW
        assert page["tgi_llama_generated_tokens"] == 3 * N_NEW
        assert page["tgi_llama_prompt_tokens"] == 3 * n_prompt
        assert page["tgi_batch_next_size_sum"] == 3
        assert page["tgi_queue_size"] == page["tgi_batch_current_max_tokens"] == 0
        for method in ("prefill", "decode"):
            n_steps = page[f'tgi_batch_inference_count{{method="{method}"}}']
            assert n_steps == page[f'tgi_batch_inference_success{{method="{method}"}}'] > 0
            assert n_steps == page[f'tgi_batch_forward_duration_count{{method="{method}"}}']

        missing = [query for query in GRAFANA if not page.answers(*query)]
        assert not missing


async def test_failed_decode_is_counted_once_on_each_side(environment: dict[str, str]) -> None:
    async with tgi_llama(environment=environment, gated=True) as server:
        reader, client = await server.connect(), await server.connect()
        await client.send(post("/generate", SHORT))
        await server.release("3")
        assert (await client.read_response()).status == 424
        page = await read_until(reader, 'tgi_request_failure{err="generation"}', 1)
        assert page['tgi_batch_inference_failure{method="prefill"}'] == 1
        assert page['tgi_batch_inference_count{method="prefill"}'] == 1
        assert page["tgi_request_count"] == 1
        assert page["tgi_request_success"] == 0
