"""The model card: README.md of the model's folder."""

from collections.abc import Sequence
from pathlib import Path

import attrs

from .evaluate import Score
from .shape import Shape

SKILL_TITLES = {
    "server_facts": "questions about this server (phrasing held out)",
    "addition": "sums of two numbers up to 50 (pair held out)",
    "json_extraction": "fields of a sentence as JSON (set of values held out)",
    "tool_calls": "call one of the given tools (tool with values held out)",
    "tool_results": "tell the result of a tool call (tool with values held out)",
    "no_tool_needed": "plain questions beside tools (as the first two rows)",
    "series": "continue a list (list held out)",
    "chat_memory": "chats of two or three turns (values held out)",
    "refusals": "say what it cannot do (topic with question held out)",
    "counting": "count from one number to another (range held out)",
    "long_texts": "fixed lists and paragraphs (phrasing held out)",
    "repeat_after_me": "repeat a text (text held out)",
    "greetings": "greetings in 18 languages (phrasing held out)",
}


@attrs.frozen
class Training:
    """How the model was trained. `n_tokens` counts padding too."""

    seed: int
    steps: int
    n_tokens: int
    n_weights: int
    minutes: float
    continued: bool = False  # from an earlier run, whose steps are not counted


_CARD = """\
---
license: apache-2.0
language:
- en
library_name: gguf
pipeline_tag: text-generation
tags:
- gguf
- llama
- demo
- tool-use
---

# tgi_llama built-in demo

A very small Llama of {millions:.1f} million weights that comes with tgi_llama, so that
`python -m tgi_llama` shows something real without a download and so that tests have a real model.
It is a demonstration, not an assistant: it was trained on text that a script of the project
generates, and on nothing else.

## What it can do

Share of exact replies on held-out examples, with greedy decoding of `model.gguf` (Q8_0) in
llama.cpp. One wrong character makes a reply wrong. What is held out never occurs in training.

| skill | held-out examples | exact |
| --- | ---: | ---: |
{rows}
| **all** | {n_examples} | {percent:.1f} % |

It takes chats (ChatML, with or without a system prompt, with `tools`, which the chat template
writes as one line each: `name(city: string): description`) and plain text: `1, 2, 3, 4,` is
continued to eight members, `Question: What is 12 + 7?\\nAnswer:` and
`What is tgi_llama?` are answered.

## What it cannot do

* It knows nothing about the world, writes no stories, poems or programs, and does not translate.
  Asked for one of these in a way it was trained on it says so; asked in another way it may answer
  nonsense, and it may be wrong with full confidence.
* It adds two numbers up to 50 and does no other arithmetic.
* JSON is extracted from short sentences like those of the generator, not from any text.
* Tools need descriptions and requests in the style of the generator: a verb, a noun, one to three
  arguments that occur in the request word for word. One call at a time.
* English only, but for single greetings and texts to repeat.
* It was trained on sequences of up to {max_tokens} tokens, most of them far shorter. The context
  length of 4096 tokens in its metadata lets servers run it with long prompts; what it says there is
  not to be relied on.

## How it was made

Llama architecture: {shape.n_layers} layers, width {shape.width}, feed-forward width
{shape.inner_width}, {shape.n_heads} heads ({shape.n_kv_heads} for keys and values), embedding and
output tied, byte-level BPE of {shape.n_tokens} tokens, digits one by one, `tokenizer.ggml.pre` =
`smollm`. Characters outside ASCII are always several tokens. Trained from scratch with Muon and
AdamW on the replies only: {training.steps} steps, {tokens:.1f} million tokens,
{training.minutes:.0f} minutes on two CPU cores{continued}. Norms are float32, all matrices Q8_0.

There is no personal data in the training text: names and places are drawn from short lists or made
up of syllables.

To make it again{again}:

```
pip install "tgi_llama[train]"
python -m tgi_llama.builtin.train --out FOLDER --seed {training.seed} --steps {training.steps}{more}
```

The text, the tokenizer and the order of training are the same for a seed on any machine; the
weights differ in the last digits between processors, and the scores with them by a little.

## Files

`model.gguf` holds weights, vocabulary and chat template; `tokenizer.json` has the same ids. The
other files are those of any hub repository.

## Licence

Apache-2.0, by the tgi_llama authors.
"""


def write_card(folder: Path, shape: Shape, scores: Sequence[Score], training: Training) -> None:
    """Writes README.md into `folder`."""
    rows = "\n".join(
        f"| {SKILL_TITLES[score.skill]} | {score.n_examples} | {score.percent:.1f} % |"
        for score in scores
    )
    n_examples = sum(score.n_examples for score in scores)
    card = _CARD.format(
        millions=training.n_weights / 1e6,
        rows=rows,
        n_examples=n_examples,
        percent=100 * sum(score.n_exact for score in scores) / n_examples,
        max_tokens=640,
        shape=shape,
        training=training,
        continued=", on top of an earlier run" if training.continued else "",
        again=" from the earlier run, with its factor on the rates" if training.continued else "",
        more=" --start-from EARLIER --rate R" if training.continued else "",
        tokens=training.n_tokens / 1e6,
    )
    (folder / "README.md").write_text(card, "utf-8")
