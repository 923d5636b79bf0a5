"""``tgi_llama.asgi:app`` for an ASGI server on Trio, configured by the environment:
``hypercorn -c python:tgi_llama.hypercorn_config tgi_llama.asgi:app``.

The lifespan starts and stops the engine. One process only: every further worker would load the
model again. How long running requests may take at shutdown is Hypercorn's ``--graceful-timeout``.
"""

import logging
from typing import TYPE_CHECKING

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from hypercorn.utils import LifespanFailureError

from tgi_llama.cli import config_from_environment, native_library, start_logging
from tgi_llama.errors import TgiLlamaError

if TYPE_CHECKING:
    from tgi_llama.service import Service

_log = logging.getLogger(__name__)


class Application:
    """The ASGI callable. Holds the running service between lifespan start-up and shutdown."""

    def __init__(self) -> None:
        self._service: Service | None = None

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        if scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
            return
        if self._service is None:
            raise RuntimeError("the ASGI server did not run the lifespan, which starts the engine")
        await self._service.app(scope, receive, send)

    async def _run_lifespan(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Raises LifespanFailureError, which ends Hypercorn, when the engine cannot start or dies.
        Hypercorn 0.18 forgets the status of its worker processes, so only ``-w 0``, which serves in
        the process itself, then ends with a non-zero status."""
        await receive()  # lifespan.startup
        try:
            await self._serve(receive, send)
        except (TgiLlamaError, BaseExceptionGroup) as error:
            cause = _only_cause(error) if isinstance(error, BaseExceptionGroup) else error
            if not isinstance(cause, TgiLlamaError):
                raise
            _log.critical("%s", cause)
            raise LifespanFailureError("service", str(cause)) from None
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        config = config_from_environment()
        start_logging(config)
        with native_library():
            from tgi_llama.service import find_model, run_service  # not at the top: it loads it
        async with trio.open_nursery() as nursery:
            files = await find_model(config)
            self._service = await nursery.start(run_service, config, files)
            await send({"type": "lifespan.startup.complete"})
            await receive()  # lifespan.shutdown: all connections have ended
            self._service = None
            nursery.cancel_scope.cancel()


def _only_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The deliberate exception in the group that nurseries made, or the group when it holds a
    defect."""
    deliberate, defects = group.split(TgiLlamaError)
    if deliberate is None or defects is not None:
        return group
    error: BaseException = deliberate
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


app = Application()
