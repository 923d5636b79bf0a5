"""What is logged, and how."""

import attrs

from .option import Group, described


@attrs.frozen(kw_only=True, slots=False)  # a class can have one base with slots
class LogOptions:
    """Part of ``config.Config``."""

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
