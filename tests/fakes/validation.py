"""A tokenizer and chat templates that a reader can follow in the head."""

from collections.abc import Mapping, Sequence

import attrs

from tgi_llama.errors import TemplateError
from tgi_llama.generation import TokenId
from tgi_llama.text.spellings import Span, Spellings

BOS = TokenId(256)


@attrs.frozen
class ByteTokenizer:
    """One token per byte of UTF-8; ``add_special`` puts ``BOS`` in front."""

    adds_bos: bool = False

    @property
    def n_vocab(self) -> int:
        return 257

    @property
    def spellings(self) -> Spellings:
        return Spellings(())

    def encode(
        self, text: str, *, add_special: bool, literals: Sequence[Span] = ()
    ) -> list[TokenId]:
        assert not literals
        ids = [TokenId(byte) for byte in text.encode()]
        return [BOS, *ids] if add_special and self.adds_bos else ids


@attrs.define(eq=False)
class TaggedTemplates:
    """Writes ``<role>content`` per message and remembers what it was given."""

    reads_tools: bool = True
    calls: list[dict[str, object]] = attrs.field(factory=list)

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[Mapping[str, object]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        **variables: object,
    ) -> str:
        self.calls.append(
            {
                "messages": messages,
                "tools": tools,
                "add_generation_prompt": add_generation_prompt,
                "continue_final_message": continue_final_message,
                "variables": variables,
            }
        )
        if any(message["role"] == "refused" for message in messages):
            raise TemplateError("no such role")
        text = "".join(f"<{message['role']}>{message['content']}" for message in messages)
        return text + ("<assistant>" if add_generation_prompt else "")
