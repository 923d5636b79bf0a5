"""The decode thread's body from the outside. Starts and stops as a whole are in ``e2e``."""

import contextlib
from pathlib import Path

from tgi_llama.config import Config
from tgi_llama.model_thread import ModelThread
from tgi_llama.models.files import ModelFiles


class StubRunner:
    def __init__(self) -> None:
        self.n_aborts = 0

    def abort(self) -> None:
        self.n_aborts += 1


class Leaving(ModelThread):
    """Its loop ends right after somebody has looked for the runner."""

    seen: list[StubRunner | None]

    @property
    def _runner(self) -> StubRunner | None:  # type: ignore[override]
        return self.seen.pop(0)

    @_runner.setter
    def _runner(self, runner: StubRunner | None) -> None:
        pass


def test_abort_while_the_decode_thread_ends_is_no_error() -> None:
    files = ModelFiles(model_id="m", gguf=Path("m.gguf"), tokenizer_folder=Path())
    thread = Leaving(Config(), files, contextlib.ExitStack())
    runner = StubRunner()
    thread.seen = [runner, None]
    thread.abort()
    assert runner.n_aborts == 1
    thread.abort()
    assert runner.n_aborts == 1, "nothing runs any more"
