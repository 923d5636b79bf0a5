"""What is raised for a body that is not the JSON the route expects."""

from typing import Self

from tgi_llama.errors import RequestError


class ParseError(RequestError):
    """The body is not JSON (``status`` 400) or not of the expected shape (422).

    ``path`` is the JSON path of the culprit, ``""`` for the body as a whole. The text of the
    exception tells the client the path, what was expected and what came.
    """

    def __init__(self, message: str, *, status: int = 422, path: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.path = path

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message

    def under(self, step: str | int) -> Self:
        """The same error seen from one level further out: in member ``step`` (or at that index) of
        the value that holds it."""
        own = f"[{step}]" if isinstance(step, int) else step
        separator = "." if self.path and not self.path.startswith("[") else ""
        return type(self)(self.message, status=self.status, path=f"{own}{separator}{self.path}")
