"""What cannot be enforced: refused, or noted where that is wanted."""

import attrs

from tgi_llama.errors import ValidationError


@attrs.define(eq=False)
class Gaps:
    """One for each schema. Paths in the order in which they were found."""

    relaxed: bool
    dropped: dict[str, None] = attrs.field(factory=dict)
    ignored: dict[str, None] = attrs.field(factory=dict)

    def drop(self, reason: str, *, at: str) -> None:
        """Notes that the keyword at this path is not enforced. Raises ValidationError unless
        relaxed."""
        if not self.relaxed:
            raise ValidationError(f"this keyword cannot be enforced: {reason}", field=at)
        self.dropped[at] = None
