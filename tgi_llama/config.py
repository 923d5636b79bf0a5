"""The configuration: one frozen value, and the one place where every option is described.

Option names are the field names with dashes, environment names the same in upper case. Values that
depend on others (threads, batch sizes) are worked out here, and texts that may come from a file
are read here: whoever holds a ``Config`` sees final values only.
"""

from pathlib import Path

import attrs

from .config_checks import check
from .cpus import n_available_cpus
from .option import Group, Option, amount, derived, described, options_of
from .option_files import api_keys, checked_keys, template_text
from .option_values import AMOUNT, AMOUNT_PATTERN, KV_TYPE_HELP, KV_TYPES, cache_ram, or_default

_MAX_THREADS = 512  # GGML_MAX_N_THREADS
_MAX_SEQUENCES = 256  # LLAMA_MAX_SEQ
_PHYSICAL_BATCH = 512  # llama.cpp's own default; docs/options.md says why not TGI's


@attrs.frozen(kw_only=True)
class Config:
    """All options with their final values. Raises ConfigError where they contradict each other.

    The command line checks each value's own syntax and names the option or variable; ranges and
    choices are checked here again, since they also bind the values that were worked out.
    """

    # Model

    model_id: str | None = described(
        None,
        group=Group.MODEL,
        unit="name or folder",
        default_text="the built-in demo model",
        help="A local folder with a GGUF file, its tokenizer.json and its chat template; or,"
        " together with --model-gguf, the name to report.",
    )
    model_gguf: Path | None = described(  # noqa: RUF009  # an attrs field
        None,
        group=Group.MODEL,
        unit="file",
        default_text="the *.gguf of the --model-id folder",
        help="The GGUF file to serve.",
    )
    chat_template: str | None = described(
        None,
        group=Group.MODEL,
        unit="file or text",
        default_text="the model's own",
        help="Jinja template for chats: a file, or the template itself.",
        resolve=lambda given, _: template_text(given),
    )
    tokenizer_config_path: Path | None = described(  # noqa: RUF009  # an attrs field
        None,
        group=Group.MODEL,
        unit="file",
        default_text="the one in the model's folder",
        help="A tokenizer_config.json to use instead of the model's.",
    )

    # llama.cpp: processors and memory

    n_threads: int = derived(
        lambda given, _: given or min(n_available_cpus(), _MAX_THREADS),
        group=Group.LLAMA_CPP,
        unit="threads",
        minimum=0,
        maximum=_MAX_THREADS,
        default_text="the CPUs this process may use",
        help="Threads that compute a step of a single token. 0 means the default.",
    )
    n_threads_batch: int = derived(
        lambda given, config: given or config.n_threads,
        group=Group.LLAMA_CPP,
        unit="threads",
        minimum=0,
        maximum=_MAX_THREADS,
        default_text="n-threads",
        help="Threads that compute a step of several tokens: prompts, and generation for two or"
        " more requests at once. 0 means the default.",
    )
    n_gpu_layers: int = described(
        0,
        group=Group.LLAMA_CPP,
        unit="layers",
        minimum=-1,
        help="Layers to keep in GPU memory; -1 means all of them.",
    )
    split_mode: str = described(
        "layer",
        group=Group.LLAMA_CPP,
        unit="mode",
        pattern=r"layer|row|[0-9]{1,3}",
        expected="a GPU number or `layer` or `row`",
        help="How several GPUs share the model: layer, row, or the number of the one GPU to use.",
    )
    numa: str = described(
        "disabled",
        group=Group.LLAMA_CPP,
        unit="strategy",
        choices=("disabled", "distribute", "isolate", "numactl", "mirror"),
        help="Placement on machines with several memory nodes: disabled, distribute, isolate,"
        " numactl or mirror.",
    )
    use_mmap: bool = described(
        True,
        group=Group.LLAMA_CPP,
        off_switch="--disable-mmap",
        help="Map the GGUF file into memory instead of reading it.",
    )
    use_mlock: bool = described(
        False,
        group=Group.LLAMA_CPP,
        help="Lock the model in memory, so that it is never swapped out.",
    )
    offload_kqv: bool = described(
        True,
        group=Group.LLAMA_CPP,
        off_switch="--disable-offload-kqv",
        help="Keep the KV memory and its operations on the GPU.",
    )
    flash_attention: bool = described(
        True,
        group=Group.LLAMA_CPP,
        off_switch="--disable-flash-attention",
        help="Use flash attention. A quantized --type-v needs it.",
    )
    type_k: str = described(
        "f16",
        group=Group.LLAMA_CPP,
        unit="type",
        choices=KV_TYPES,
        help=f"Type of the K half of the KV memory. {KV_TYPE_HELP}",
    )
    type_v: str = described(
        "f16",
        group=Group.LLAMA_CPP,
        unit="type",
        choices=KV_TYPES,
        help="Type of the V half of the KV memory; as for --type-k.",
    )
    kv_layout: str = described(
        "auto",
        group=Group.LLAMA_CPP,
        unit="layout",
        choices=("streams", "unified", "auto"),
        help="streams: every sequence owns max-total-tokens cells. unified: all sequences share"
        " one pool of cells, which may be smaller than their sum. auto: the server chooses.",
    )
    swa_full: bool = described(
        False,
        group=Group.LLAMA_CPP,
        off_switch="--disable-swa-full",
        help="Keep room for all cells of sliding-window layers: more memory, but nearly any shared"
        " prefix of resident sequences can be reused, not only those at checkpoints.",
    )
    prefix_cache: bool = described(
        True,
        group=Group.LLAMA_CPP,
        off_switch="--disable-prefix-cache",
        help="Let prompts that begin alike share what is computed of the beginning.",
    )
    cache_ram: int | None = amount(
        lambda given, _: cache_ram(given),
        group=Group.LLAMA_CPP,
        unit="bytes or percent",
        minimum=0,
        pattern=AMOUNT_PATTERN,
        expected=AMOUNT,
        default_text="25% of the available memory, at most 8GiB and what the model leaves",
        help="Host memory for sequences that were pushed out of the context, so that a prompt with"
        " the same beginning need not be computed again: bytes, with a suffix (512MiB, 2G), or a"
        " percentage of the memory that is available at start, within the container's limits. 0"
        " turns it off; models with recurrent states or sliding windows then keep no checkpoints.",
    )

    # Limits of one request

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
    disable_grammar_support: bool = described(
        False,
        group=Group.REQUEST,
        help="Refuse requests that constrain the output by a grammar, and those with tools.",
    )
    tool_format: str = described(
        "auto",
        group=Group.REQUEST,
        unit="name",
        default_text="as the chat template shows",
        help="How the model writes tool calls; a wrong name is answered with those there are.",
    )
    reasoning_format: str = described(
        "auto",
        group=Group.REQUEST,
        unit="name",
        choices=("auto", "deepseek", "none"),
        help="Where a model's reasoning goes unless a request says it: none leaves it in the"
        " content, the others put it into reasoning_content.",
    )
    max_grammar_bytes: int = described(
        262_144,
        group=Group.REQUEST,
        unit="bytes",
        minimum=1,
        help="Longest grammar of a request, the schemas of all its tools together.",
    )
    grammar_cache_size: int = described(
        64,
        group=Group.REQUEST,
        unit="grammars",
        minimum=0,
        help="Compiled grammars to keep for requests that ask for the same.",
    )
    relax_json_schemas: bool = described(
        False,
        group=Group.REQUEST,
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

    # Batching

    max_concurrent_requests: int = described(
        128,
        group=Group.BATCH,
        unit="requests",
        minimum=0,
        help="Requests that may run or wait for their turn; one more is answered 429 at once."
        " 0 refuses all. The default leaves room to wait: TGI's llamacpp backend has twice its"
        " batch size here, which refuses clients that could have been served a moment later.",
    )
    validation_workers: int = described(
        2,
        group=Group.BATCH,
        unit="threads",
        minimum=1,
        maximum=_MAX_THREADS,
        help="Threads that check and tokenize requests. As many more compile grammars that are"
        " not known yet.",
    )
    max_batch_size: int = derived(
        lambda given, config: given or min(config.n_threads_batch, _MAX_SEQUENCES),
        group=Group.BATCH,
        unit="sequences",
        minimum=0,
        maximum=_MAX_SEQUENCES,
        default_text=f"n-threads-batch, at most {_MAX_SEQUENCES}",
        help="Sequences that are generated at the same time. 0 means the default.",
    )
    max_batch_total_tokens: int = derived(
        lambda given, config: or_default(given, config.max_batch_size * config.max_total_tokens),
        group=Group.BATCH,
        unit="tokens",
        minimum=1,
        default_text="max-batch-size * max-total-tokens",
        help="Cells of the KV memory, which all sequences share out: the context size.",
    )
    max_physical_batch_total_tokens: int = derived(
        lambda given, config: min(
            or_default(given, _PHYSICAL_BATCH), config.max_batch_total_tokens
        ),
        group=Group.BATCH,
        unit="tokens",
        minimum=1,
        default_text=f"{_PHYSICAL_BATCH}, at most max-batch-total-tokens",
        help="Most tokens that llama.cpp computes in one go; memory for intermediate results"
        " grows with it. More than max-batch-total-tokens counts as that many.",
    )
    max_batch_prefill_tokens: int = derived(
        lambda given, config: or_default(given, config.max_physical_batch_total_tokens),
        group=Group.BATCH,
        unit="tokens",
        minimum=1,
        default_text="max-physical-batch-total-tokens",
        help="The most prompt tokens that a step computes beside running streams, whatever time"
        " --target-inter-token-latency would leave for more.",
    )
    target_inter_token_latency: float = described(
        0.0,
        group=Group.BATCH,
        unit="milliseconds",
        minimum=0,
        help="A step that computes prompts beside running streams is kept within this many"
        " milliseconds; 0: three times the measured duration of a step without prompts, at least"
        " 220 ms, and 400 ms where twelve or more sequences run.",
    )

    # HTTP server

    hostname: str = described(
        "0.0.0.0",
        group=Group.HTTP,
        unit="address",
        pattern=r"\S+",
        expected="an address to listen on",
        has_variable=False,  # containers and shells set HOSTNAME to something else
        help="Address to listen on. Not read from the environment.",
    )
    port: int = described(
        3000,
        group=Group.HTTP,
        unit="port",
        minimum=0,
        maximum=65535,
        aliases=("-p",),
        help="Port to listen on; 0 takes a free one.",
    )
    prometheus_port: int | None = described(
        None,
        group=Group.HTTP,
        unit="port",
        minimum=0,
        maximum=65535,
        help="Serve /metrics on this port too; it is always served on --port.",
    )
    api_key_file: Path | None = described(  # noqa: RUF009  # an attrs field
        None,
        group=Group.HTTP,
        unit="file",
        help="Accept the keys in this file too, one a line.",
    )
    api_key: tuple[str, ...] = described(
        (),
        group=Group.HTTP,
        unit="key",
        secret=True,
        help="Ask clients for this bearer token. Repeat it to accept several. A key on the"
        " command line can be seen by others on the machine; a file or API_KEY cannot.",
        resolve=lambda given, config: checked_keys(given + api_keys(config.api_key_file)),
    )
    cors_allow_origin: tuple[str, ...] = described(
        (),
        group=Group.HTTP,
        unit="origin",
        default_text="any",
        help="Let pages of this origin use the server from a browser. Repeat it for several.",
    )
    graceful_termination_timeout: float = described(
        90.0,
        group=Group.HTTP,
        unit="seconds",
        minimum=0,
        aliases=("-g",),
        help="How long running requests may go on after SIGTERM or SIGINT.",
    )

    # Logs

    log_level: str = described(
        "info",
        group=Group.LOGS,
        unit="level",
        pattern=r"(?is)(.*[,=])?\s*(trace|debug|info|warn|error|off)\s*(,.*)?",
        expected="a level (trace, debug, info, warn, error or off) or a filter expression with one",
        help="Least severe messages of the server to log: trace, debug, info, warn, error or off."
        " Of a filter expression, as TGI takes it, the level without a target counts.",
    )
    json_output: bool = described(
        False,
        group=Group.LOGS,
        help="Log one JSON object per line.",
    )

    # Accepted for compatibility, without effect

    revision: str = described(
        "main",
        group=Group.NO_EFFECT,
        unit="revision",
        help="Revision of a hub model.",
        no_effect="this version serves local files and downloads nothing",
    )
    defrag_threshold: float = described(
        -1.0,
        group=Group.NO_EFFECT,
        unit="ratio",
        minimum=-1,
        help="Share of holes at which the KV memory was defragmented.",
        no_effect="llama.cpp no longer defragments its KV memory",
    )
    waiting_served_ratio: float = described(
        1.2,
        group=Group.NO_EFFECT,
        unit="ratio",
        minimum=0,
        help="When waiting requests interrupted running ones.",
        no_effect="requests join the running batch at the next step",
    )
    max_waiting_tokens: int = described(
        20,
        group=Group.NO_EFFECT,
        unit="tokens",
        minimum=0,
        help="How long waiting requests could be kept out of the batch.",
        no_effect="requests join the running batch at the next step",
    )
    enable_prefill_logprobs: bool = described(
        False,
        group=Group.NO_EFFECT,
        help="Compute logprobs of prompt tokens.",
        no_effect="always on: they are computed for every request that asks for them",
    )
    max_image_fetch_size: int = described(
        1_073_741_824,
        group=Group.NO_EFFECT,
        unit="bytes",
        minimum=0,
        help="Largest image to fetch.",
        no_effect="this version fetches no images",
    )
    otlp_endpoint: str | None = described(
        None,
        group=Group.NO_EFFECT,
        unit="address",
        help="Where to send traces.",
        no_effect="this version sends no traces",
    )
    otlp_service_name: str = described(
        "text-generation-inference.router",
        group=Group.NO_EFFECT,
        unit="name",
        help="Name of the service in traces.",
        no_effect="this version sends no traces",
    )
    usage_stats: str = described(
        "off",
        group=Group.NO_EFFECT,
        unit="level",
        choices=("on", "no-stack", "off"),
        help="Usage statistics to send: on, no-stack or off.",
        no_effect="nothing is ever sent anywhere",
    )

    def __attrs_post_init__(self) -> None:
        check(self, options())

    def warnings(self) -> tuple[str, ...]:
        """One sentence for each option that was given although it changes nothing."""
        return tuple(
            f"{option.flag} has no effect: {option.no_effect}"
            for option in options()
            if option.no_effect and getattr(self, option.name) != option.default
        )


def options() -> tuple[Option, ...]:
    """All options in the order in which they are shown."""
    return options_of(Config)
