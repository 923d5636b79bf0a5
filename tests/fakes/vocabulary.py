"""The vocabulary that belongs to ``fakes.validation.ByteTokenizer``."""

import attrs
from fakes.validation import BOS

from tgi_llama.generation import TokenId
from tgi_llama.text.tokenizer import InfillTokens

PRE, SUF, MID = TokenId(300), TokenId(301), TokenId(302)

_INFILL = InfillTokens(PRE, SUF, MID)


@attrs.frozen
class ByteVocabulary:
    """A token is the byte of its id; ``BOS`` is spelled ``<s>``."""

    infill: InfillTokens | None = _INFILL

    def piece(self, token: TokenId) -> bytes:
        return b"<s>" if token == BOS else bytes([token])
