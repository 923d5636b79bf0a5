"""How requests share the model."""

import attrs

from .option import Group, derived, described
from .values import MAX_THREADS, or_default

_MAX_SEQUENCES = 256  # LLAMA_MAX_SEQ
_PHYSICAL_BATCH = 512  # llama.cpp's own default; docs/options.md says why not TGI's


@attrs.frozen(kw_only=True, slots=False)  # a class can have one base with slots
class BatchOptions:
    """Part of ``config.Config``."""

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
        maximum=MAX_THREADS,
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
