"""Which tokens may come next in one sequence: its grammar's state, and the mask of that state.

Theory of operation
-------------------
Asking the state about one token costs about a microsecond, a mask of all tokens ten and now and
then some hundred, a pathological one tens of milliseconds. Where a sequence will probably need its
mask, the state is *lent* to a ``MaskPool`` right before a decode, whose threads compute the mask
while llama.cpp works, and it is back, usually long since, when the decode has ended. Where it
probably does not (a greedy choice is legal nearly always once a model has seen the format), only
the chosen token is asked for, and a mask that is needed after all is computed on the spot.

The state has one owner at a time: the decode thread, or from ``lend`` on the thread that calls
``compute_lent``. Whatever the decode thread asks while it is lent waits for it to come back.
"""

import threading
from collections.abc import Sequence as Seq

import numpy as np
from numpy.typing import NDArray

from tgi_llama.errors import GenerationError
from tgi_llama.generation import GrammarState, TokenId

MaskBits = NDArray[np.uint8]
"""A bit per token, the lowest of each byte first, a multiple of 8 bytes."""


class Guide:
    """Holds one sequence to its grammar. Decode thread only, but for ``compute_lent``."""

    def __init__(
        self,
        state: GrammarState,
        n_vocab: int,
        *,
        always_masks: bool = False,
        avoided: Seq[TokenId] = (),
    ) -> None:
        """``always_masks``: every choice will ask for the mask. ``avoided``: tokens that may come
        only where nothing else may."""
        self._state = state
        self._bits: MaskBits = np.zeros(-(-n_vocab // 64) * 8, dtype=np.uint8)
        self._address: int = self._bits.ctypes.data
        self._n_bytes = -(-n_vocab // 32) * 4
        """As many as llguidance wants; those behind them stay zero."""
        self._always_masks = always_masks
        self._avoided = np.array(avoided, dtype=np.intp)
        self._has_mask = False
        self._was_asked = False
        self._is_lent = False
        self._returned = threading.Lock()
        """Held while the state is lent."""
        self._failure: Exception | None = None
        """Of the computation that was lent."""
        self.is_complete = state.is_complete
        """Nothing may follow any more but the end. Known also while the state is lent."""
        self.wants_mask_early = True
        """Whether the next choice will surely or probably ask for the mask: the last one did. The
        first mask of a grammar is its most expensive, and there is a prompt to compute anyway."""

    # While llama.cpp works

    def lend(self) -> None:
        """Gives the state to whoever calls ``compute_lent`` next."""
        assert not self._is_lent
        self._returned.acquire()
        self._is_lent = True

    def compute_lent(self) -> None:
        """Computes the mask and gives the state back. Called once after ``lend``, on any thread."""
        try:
            self._fill()
        except Exception as error:  # raised where the state is used next
            self._failure = error
        except BaseException as error:
            # A panic of native code. It would end this thread, and then the decode thread.
            self._failure = GenerationError(f"computing the mask broke down: {error!r}")
        finally:
            self._returned.release()

    def is_here(self, timeout_s: float | None = 0.0) -> bool:
        """Whether the state is not lent, within that time; None: waits for as long as it is."""
        if self._is_lent:
            if not self._returned.acquire(timeout=-1 if timeout_s is None else timeout_s):
                return False
            self._returned.release()
            self._is_lent = False
        return True

    # Before a choice. All of these raise GenerationError where the grammar's state is broken.

    def allows(self, token: TokenId) -> bool:
        """Whether the token may come next."""
        self._own()
        if not self._has_mask and not self._avoided.shape[0]:
            return self._state.allows(token)
        if not self._has_mask:
            self._fill()
        return bool(self._bits[token >> 3] >> (token & 7) & 1)

    def mask(self) -> MaskBits:
        """The tokens that may come next, none where the grammar has come to a dead end. Valid until
        the next one is taken."""
        self._own()
        self._was_asked = True
        if not self._has_mask:
            self._fill()
        return self._bits

    # After a choice

    def take(self, token: TokenId) -> None:
        """The token comes next; it does not end the generation."""
        self._own()
        self._state.take(token)
        self.is_complete = self._state.is_complete
        self.wants_mask_early = self._always_masks or self._was_asked
        self._has_mask = self._was_asked = False

    def take_forced(self, n_most: int) -> list[TokenId]:
        """Takes the tokens that must come next, ``n_most`` of them at most."""
        self._own()
        tokens = list(self._state.forced())[:n_most] if n_most > 0 else []
        for token in tokens:
            self._state.take(token)
            self._has_mask = False
        self.is_complete = self._state.is_complete
        return tokens

    def _own(self) -> None:
        self.is_here(None)
        if self._failure is not None:
            raise self._failure

    def _fill(self) -> None:
        self._state.fill_mask(self._address, self._n_bytes)
        if self._avoided.shape[0]:
            self._clear_avoided()
        self._has_mask = True

    def _clear_avoided(self) -> None:
        places, bits = self._avoided >> 3, np.uint8(1) << (self._avoided & 7).astype(np.uint8)
        before = self._bits.take(places)
        np.bitwise_and.at(self._bits, places, ~bits)
        if not self._bits.any():
            self._bits[places] = before
