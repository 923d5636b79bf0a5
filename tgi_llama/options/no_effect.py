"""Options of TGI that are accepted, so that its command lines work, and change nothing."""

import attrs

from .option import Group, described


@attrs.frozen(kw_only=True, slots=False)  # a class can have one base with slots
class NoEffectOptions:
    """Part of ``config.Config``."""

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
