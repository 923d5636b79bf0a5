"""Playbooks of sequences that follow grammars of fixed and free parts."""

import attrs
from fakes.letter_grammars import RuleGrammar
from fakes.playbook import Playbook
from fakes.runner import EOS, FakeRunner, noisy

from tgi_llama.generation import RequestId, TokenEvent


@attrs.frozen
class Script:
    """A grammar with fixed parts: a number for a token that must come, None for any of 10 to 19."""

    parts: tuple[int | None, ...]

    def __call__(self, tokens: tuple[int, ...]) -> set[int]:
        if len(tokens) == len(self.parts):
            return {EOS}
        part = self.parts[len(tokens)]
        return set(range(10, 20)) if part is None else {part}


def any_then(*parts: int | None) -> RuleGrammar:
    return RuleGrammar(Script((None, *parts)))


def make_play(plays: list[Playbook], **options: object) -> Playbook:
    runner = options.pop("runner", None) or FakeRunner(script=noisy)
    play = Playbook(runner=runner, **options)  # type: ignore[arg-type]
    plays.append(play)
    return play


def logprobs(play: Playbook, request: RequestId) -> list[float | None]:
    return [each.token.logprob for each in play.events[request] if isinstance(each, TokenEvent)]
