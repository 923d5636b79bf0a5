"""The real application over a scripted engine, in memory or behind a real socket.

``site = await make_site(engine, **settings)`` builds it, ``site.client()`` talks to it in memory,
``await site.connect()`` through a socket (the server starts with the first connection).
"""

import itertools
from collections.abc import Callable, Sequence

import attrs
import trio
from fakes.adapters import adapter_file, fetch_nothing
from fakes.engine import START, FakeEngine, character
from fakes.raw_client import RawClient
from quart.typing import TestClientProtocol
from quart_trio import QuartTrio

from tgi_llama.adapters import Adapters
from tgi_llama.admission import Admission, ValidationWorkers
from tgi_llama.generation import ModelDescription, TokenId
from tgi_llama.metrics import MetricLimits, Metrics
from tgi_llama.models.adapters import AdapterSources
from tgi_llama.server.app import create_app
from tgi_llama.server.listener import HttpServer, bind
from tgi_llama.server.services import Services, Settings
from tgi_llama.text.spellings import Span, Spellings
from tgi_llama.text.tokenizer import EncodedToken
from tgi_llama.validation.constraints import Constraints
from tgi_llama.validation.rules import Limits
from tgi_llama.validation.validator import ChatTemplates, Validator

LIMITS = Limits(max_input_tokens=100, max_total_tokens=200, max_client_batch_size=4)

MODEL = ModelDescription(
    architecture="llama",
    description="llama 2M Q4_0",
    n_parameters=2_000_000,
    size_bytes=1_500_000,
    n_vocab=300,
    n_context_train=512,
    n_cells=800,
    n_slots=4,
    kv_layout="streams",
    max_batch_tokens=800,
    physical_batch_tokens=512,
    n_threads=2,
    n_threads_batch=2,
    n_gpu_layers=0,
    backend="cpu",
    type_k="f16",
    type_v="f16",
    flash_attention="on",
    mmap=True,
    mlock=False,
    numa="disabled",
    offload_kqv=True,
    kv_device="CPU",
    split_mode="layer",
)


CONTROL = TokenId(2)


class CharacterTokenizer:
    """One token per character, its code point; a start token 1 in front where asked for, and a
    control token ``CONTROL`` that is spelled ``<|end|>``."""

    n_vocab = 0x110000
    spellings = Spellings(("<|end|>",))

    def __init__(self) -> None:
        self.on_encode: Callable[[], None] = lambda: None
        """Called on the worker, before each encoding."""

    def encode(
        self, text: str, *, add_special: bool, literals: Sequence[Span] = ()
    ) -> list[TokenId]:
        self.on_encode()
        spans = self.encode_with_offsets(text, add_special=add_special, literals=literals)
        return [span.id for span in spans]

    def encode_with_offsets(
        self, text: str, *, add_special: bool, literals: Sequence[Span] = ()
    ) -> list[EncodedToken]:
        spans = [EncodedToken(START, 0, 0)] if add_special else []
        controls = {a: b for a, b in self.spellings.find(text) if (a, b) not in literals}
        position = start = 0
        while position < len(text):
            until = controls.get(position, position + 1)
            stop = start + len(text[position:until].encode())
            token = CONTROL if position in controls else TokenId(ord(text[position]))
            spans.append(EncodedToken(token, start, stop))
            position, start = until, stop
        return spans


class CharacterVocabulary:
    """Of the same tokens. No model of these could fill a gap."""

    infill = None

    def piece(self, token: TokenId) -> bytes:
        return character(token).encode()


class PlainTemplate:
    """``role: content`` lines."""

    reads_tools = True

    def render(self, messages, *, add_generation_prompt=True, **_variables):  # type: ignore[no-untyped-def]
        lines = [f"{message['role']}: {message['content']}\n" for message in messages]
        return "".join([*lines, "assistant:" if add_generation_prompt else ""])


@attrs.define(eq=False)
class Site:
    engine: FakeEngine
    tokenizer: CharacterTokenizer
    services: Services
    app: QuartTrio
    _nursery: trio.Nursery
    _port: int | None = None
    _clients: list[RawClient] = attrs.field(factory=list)

    @property
    def admission(self) -> Admission:
        return self.services.admission

    def client(self) -> TestClientProtocol:
        return self.app.test_client()

    def metric(self, sample: str) -> float:
        """The value of one sample of the metrics page, 0 where there is none."""
        for line in self.services.metrics.render().decode().splitlines():
            name, _, value = line.rpartition(" ")
            if name == sample:
                return float(value)
        return 0.0

    async def connect(self) -> RawClient:
        """A new connection to the application behind a real server."""
        if self._port is None:
            server = HttpServer(self.app, bind("127.0.0.1", 0))
            (address,) = await self._nursery.start(server.run)
            self._port = int(address.rpartition(":")[2])
        client = RawClient(await trio.open_tcp_stream("127.0.0.1", self._port))
        self._clients.append(client)
        return client

    async def close(self) -> None:
        """Closes the connections that tests left open."""
        for client in self._clients:
            await client.close()


async def build_site(
    nursery: trio.Nursery,
    engine: FakeEngine | None = None,
    *,
    is_healthy: bool = True,
    max_concurrent_requests: int = 8,
    clock: Callable[[], float] = lambda: 0.5,
    max_best_of: int = 2,
    model_id: str = "test/model",
    constraints: Constraints | None = None,
    adapters: Sequence[str] = (),
    sources: AdapterSources | None = None,
    chat_templates: ChatTemplates | None = None,
    **settings: object,
) -> Site:
    """The fake engine's timings are 1.0, 1.25, 1.5 and 2.0. Drawn seeds are 7, 8, ...

    ``adapters``: names of LoRA adapters that are loaded at the start.
    """
    engine = engine or FakeEngine()
    limits = attrs.evolve(LIMITS, max_best_of=max_best_of)
    workers = ValidationWorkers(1)
    await nursery.start(workers.run)
    tokenizer = CharacterTokenizer()
    metrics = Metrics(
        MetricLimits(max_input_tokens=100, max_total_tokens=200, n_cells=800, n_slots=4)
    )
    registry = Adapters(
        engine,
        sources or AdapterSources(fetch=fetch_nothing),
        model_id,
        observe=metrics.set_adapters,
    )
    await registry.load_first([adapter_file(name) for name in adapters])
    await nursery.start(registry.run)
    services = Services(
        settings=Settings(  # type: ignore[arg-type]
            model_id=model_id,
            version="1.2.3",
            limits=limits,
            max_concurrent_requests=max_concurrent_requests,
            validation_workers=1,
            **settings,
        ),
        admission=Admission(engine, workers, max_concurrent_requests),  # type: ignore[arg-type]
        validator=Validator(
            limits,
            tokenizer,
            chat_templates or PlainTemplate(),
            vocabulary=CharacterVocabulary(),
            constraints=constraints or Constraints(),
            draw_seed=itertools.count(7).__next__,
            adapters=lambda: registry.ids,
        ),
        adapters=registry,
        tokenizer=tokenizer,
        metrics=metrics,
        model=MODEL,
        is_healthy=lambda: is_healthy,
        clock=clock,
    )
    return Site(engine, tokenizer, services, create_app(services), nursery)
