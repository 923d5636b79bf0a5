"""Renders conversations as ``transformers`` does, in an environment that has it.

Started as a file by that environment's Python, so it imports nothing of ours. Reads one JSON object
from standard input: ``templates`` by name, ``now`` in ISO format, ``special_tokens``, and ``jobs``,
each a template's name and several variants of a conversation. Writes a list with an object for each
job: the ``prompt`` of the first variant that renders, and its ``index``, or ``refused``.
"""

import datetime
import json
import sys

import jinja2
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers.utils import chat_template_utils


def main():
    work = json.load(sys.stdin)
    fixed = datetime.datetime.fromisoformat(work["now"])

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):  # noqa: ARG003
            return fixed

    chat_template_utils.datetime = Clock
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"a": 0}, unk_token="a")), **work["special_tokens"]
    )
    results = []
    for name, variants in work["jobs"]:
        tokenizer.chat_template = work["templates"][name]
        results.append(first_prompt(tokenizer, variants))
    json.dump(results, sys.stdout)


def first_prompt(tokenizer, variants):
    refused = ""
    for index, variant in enumerate(variants):
        try:
            arguments = {**variant, **variant["kwargs"]}
            del arguments["kwargs"]
            prompt = tokenizer.apply_chat_template(
                arguments.pop("messages"), tokenize=False, **arguments
            )
        except Exception as error:
            refused = refused or f"{type(error).__name__}: {error}"
            on_purpose = type(error) is jinja2.TemplateError
            if on_purpose or str(error).startswith("continue_final_message"):
                break
        else:
            return {"prompt": prompt, "index": index}
    return {"refused": refused}


main()
