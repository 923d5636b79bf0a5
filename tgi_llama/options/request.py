"""What one request may ask for."""

import attrs

from .option import Group, described


@attrs.frozen(kw_only=True, slots=False)  # a class can have one base with slots
class RequestOptions:
    """Part of ``config.Config``."""

    max_input_tokens: int = described(
        1024,
        group=Group.REQUEST,
        unit="tokens",
        minimum=1,
        aliases=("--max-input-length",),
        help="Longest prompt. A longer one is refused, unless the request asks to truncate it.",
    )
    max_total_tokens: int = described(
        2048,
        group=Group.REQUEST,
        unit="tokens",
        minimum=1,
        help="Most tokens of prompt and output together.",
    )
    max_best_of: int = described(
        2,
        group=Group.REQUEST,
        unit="sequences",
        minimum=1,
        help="Largest best_of of the native routes: alternatives computed for one request.",
    )
    max_stop_sequences: int = described(
        4,
        group=Group.REQUEST,
        unit="strings",
        minimum=0,
        help="Most stop strings.",
    )
    max_top_n_tokens: int = described(
        5,
        group=Group.REQUEST,
        unit="tokens",
        minimum=0,
        help="Largest top_n_tokens: likeliest tokens listed for each step.",
    )
    max_client_batch_size: int = described(
        32,
        group=Group.REQUEST,
        unit="prompts",
        minimum=1,
        help="Most prompts in one call of /v1/completions, and largest n and best_of of /v1.",
    )
    parse_special_tokens: str = described(
        "prompts",
        group=Group.STRUCTURE,
        unit="where",
        choices=("prompts", "all", "none"),
        help="Where the spelling of a control token in a client's text becomes that token. prompts:"
        " in those of /generate, /v1/completions and /tokenize. all: also in the messages and tools"
        " of chats, as in TGI. none: nowhere.",
    )
    disable_grammar_support: bool = described(
        False,
        group=Group.STRUCTURE,
        help="Refuse requests that constrain the output by a grammar, and those with tools.",
    )
    tool_format: str = described(
        "auto",
        group=Group.STRUCTURE,
        unit="name",
        default_text="as the chat template shows",
        help="How the model writes tool calls; a wrong name is answered with those there are.",
    )
    reasoning_format: str = described(
        "auto",
        group=Group.STRUCTURE,
        unit="name",
        choices=("auto", "deepseek", "none"),
        help="Where a model's reasoning goes unless a request says it: none leaves it in the"
        " content, the others put it into reasoning_content.",
    )
    max_grammar_bytes: int = described(
        262_144,
        group=Group.STRUCTURE,
        unit="bytes",
        minimum=1,
        help="Longest grammar of a request, the schemas of all its tools together.",
    )
    grammar_cache_size: int = described(
        64,
        group=Group.STRUCTURE,
        unit="grammars",
        minimum=0,
        help="Compiled grammars to keep for requests that ask for the same.",
    )
    relax_json_schemas: bool = described(
        False,
        group=Group.STRUCTURE,
        help="Leave out keywords of JSON schemas that cannot be enforced, and name them in a"
        " warning header, instead of refusing the request.",
    )
    payload_limit: int = described(
        2_000_000,
        group=Group.REQUEST,
        unit="bytes",
        minimum=1,
        help="Largest request body; a larger one is answered 413.",
    )
