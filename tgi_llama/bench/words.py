"""Prompts of random common words: about a token each, and never the same twice.

Servers keep the prompts they have computed, so a prompt that was sent before measures the cache.
"""

import random

_WORDS = """
time year people way day man thing woman life child world school state family student group country
problem hand part place case week company system program question work number night point home water
room mother area money story fact month lot right study book eye job word business issue side kind
head house service friend father power hour game line end member law car city name team minute idea
body back parent face level office door health person art war history party result change morning
reason research girl guy moment air teacher force education foot boy age policy process music market
sense nation plan college interest death experience effect use class control care field development
role effort rate heart drug show leader light voice wife police mind price report decision son view
relationship town road arm difference value building action season society tax director position
player record paper space ground form event official matter center couple site project base activity
star table need court oil situation cost industry figure street image phone data picture practice
piece land product doctor wall patient worker news test movie north love step south bird river stone
""".split()  # noqa: SIM905  # a list of quoted words takes a page


class PromptSource:
    """Fresh prompts. The same seed gives the same prompts in the same order."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def words(self, n_words: int) -> str:
        """A text of ``n_words`` random words."""
        return " ".join(self._random.choices(_WORDS, k=n_words))

    def gap_s(self, rate: float) -> float:
        """The time to the next arrival of a Poisson process with ``rate`` arrivals a second."""
        return self._random.expovariate(rate)
