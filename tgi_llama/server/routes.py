"""What the server answers: one table, from which the application mounts, guards and counts."""

from collections.abc import Awaitable, Callable

import attrs
from quart import Response

View = Callable[..., Awaitable[Response]]


@attrs.frozen
class Route:
    """One path with one method. Quart adds HEAD to GET; the exchange answers OPTIONS."""

    method: str
    path: str
    """As Quart writes it: ``/v1/models/<path:model_id>``."""
    name: str
    """Unique; the operation's id in the API document. TGI's where it has one."""
    view: View
    is_counted: bool = attrs.field(default=False, kw_only=True)
    """It asks for generations, so ``tgi_request_count`` counts it."""
    is_admin: bool = attrs.field(default=False, kw_only=True)
    """It changes what is served: an admin key opens it, and nothing else."""
    needs_key: bool = attrs.field(kw_only=True)
    """Where the server has API keys: without one it answers 401."""

    @needs_key.default
    def _post_needs_key(self) -> bool:
        return self.method == "POST" and not self.is_admin
