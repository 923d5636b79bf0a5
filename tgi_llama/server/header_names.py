"""The ``x-*`` headers of generated answers and what they mean: for the API document, and for the
browsers that let the code of a page read what they are told of. ``response_headers`` makes them.
"""

from typing import Final

GRAMMAR_WARNINGS: Final = "x-grammar-warnings"

COMPUTE_TIME: Final = "x-compute-time"

STREAM_HEADERS: Final[dict[str, str]] = {
    "x-compute-type": "What computes, for example `cpu`.",
    "x-compute-characters": "Characters of the prompts.",
    "x-validation-time": "Milliseconds of checking and tokenizing.",
    "x-prompt-tokens": "Tokens of the prompts.",
    GRAMMAR_WARNINGS: "What of a JSON Schema is not enforced, by percent-encoded JSON path; only"
    " where there is any, with `--relax-json-schemas`.",
    "x-accel-buffering": "`no`, so that proxies do not hold a stream back. On streams only.",
}
"""What a streamed answer of a generating route says about itself."""

ANSWER_HEADERS: Final[dict[str, str]] = {
    **{name: text for name, text in STREAM_HEADERS.items() if name != "x-accel-buffering"},
    "x-total-time": "Milliseconds from the request to its last token.",
    "x-queue-time": "Milliseconds of waiting for a slot.",
    "x-inference-time": "Milliseconds of computing.",
    "x-time-per-token": "Milliseconds of computing per generated token.",
    "x-generated-tokens": "Tokens generated.",
    "x-cached-tokens": "Tokens of the prompts that an earlier request had computed already.",
    COMPUTE_TIME: "Seconds from the request to its last token.",
}
"""What a whole answer of a generating route says about itself."""
