"""Says where a chat template is wrong."""

import re
from collections.abc import Iterator
from types import TracebackType

import jinja2
import jinja2.lexer
from jinja2.exceptions import SecurityError, TemplateSyntaxError, UndefinedError

from .template_environment import TemplateRaised
from .template_meter import LimitExceeded

TEMPLATE_NAME = "<string>"
"""The file name of templates in messages, as in TGI's."""

RENDER_ERRORS = (
    jinja2.TemplateError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a template can raise while it is rendered: its expressions are Python's."""


_MAX_DETAIL = 2000
"""Characters of what a template says itself."""


def describe_syntax_error(
    environment: jinja2.Environment, source: str, error: TemplateSyntaxError
) -> str:
    """One line: what is wrong, and the line and column, counted from 1.

    Jinja knows lines only; the column is left out where it cannot be found again.
    """
    column = _column(environment, source, error)
    where = f"line {error.lineno}" + (f", column {column}" if column else "")
    return f"{error.message} ({where})"


def describe_render_error(error: BaseException) -> str:
    """One line in TGI's form, ``<kind>: <detail> (in <string>:<line>)``."""
    detail = " ".join(str(error)[:_MAX_DETAIL].split()) or type(error).__name__
    line = _template_line(error.__traceback__)
    where = f":{line}" if line else ""
    return f"{_kind(error)}: {detail} (in {TEMPLATE_NAME}{where})"


def _kind(error: BaseException) -> str:
    if isinstance(error, TemplateRaised | TemplateSyntaxError):
        return "syntax error"  # what TGI's engine calls both
    if isinstance(error, UndefinedError):
        return "undefined value"
    if isinstance(error, LimitExceeded):
        return "too costly"
    if isinstance(error, SecurityError):
        return "not allowed"
    return "invalid operation"


def _template_line(traceback: TracebackType | None) -> int | None:
    """The template's line where the error came from: Jinja puts its lines into tracebacks."""
    line = None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == TEMPLATE_NAME:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line


def _column(environment: jinja2.Environment, source: str, error: TemplateSyntaxError) -> int | None:
    position = _quoted_character(error)
    if position is None:
        position = _quoted_word(source, error)
    if position is None:
        position = _failing_token(environment, source, error.lineno)
    return None if position is None else position - source.rfind("\n", 0, position)


def _quoted_character(error: TemplateSyntaxError) -> int | None:
    """The lexer names the offset of a character it does not know."""
    match = re.fullmatch(r"unexpected char .+ at (\d+)", error.message or "", re.DOTALL)
    return int(match[1]) if match else None


def _quoted_word(source: str, error: TemplateSyntaxError) -> int | None:
    """Unknown filters, tests and tags are quoted in the message: look for the word in the line."""
    quoted = re.search(r"(?:named|tag) '([^']+)'", error.message or "")
    if quoted is None:
        return None
    start = _line_start(source, error.lineno)
    match = re.compile(rf"\b{re.escape(quoted[1])}\b").search(source, start)
    return match.start() if match and "\n" not in source[start : match.start()] else None


def _failing_token(environment: jinja2.Environment, source: str, line: int) -> int | None:
    """The offset of the last token on ``line`` that the parser had read when it gave up."""
    n_read = _count_read(environment, source)
    last = None
    for _, (token_line, position) in zip(
        range(n_read), _token_positions(environment, source), strict=False
    ):
        if token_line == line:
            last = position
    return last


def _count_read(environment: jinja2.Environment, source: str) -> int:
    """How many tokens the parser reads before it fails."""
    n_read = 0

    def counted(stream: jinja2.lexer.TokenStream) -> Iterator[jinja2.lexer.Token]:
        nonlocal n_read
        for token in stream:
            n_read += 1
            yield token

    try:
        parser = jinja2.parser.Parser(environment, source)
        parser.stream = jinja2.lexer.TokenStream(counted(parser.stream), None, None)
        parser.parse()
    except TemplateSyntaxError:
        return n_read
    return 0  # it parses: the error came later


_SKIPPED = frozenset(
    ["comment_begin", "comment", "comment_end", "whitespace", "raw_begin", "raw_end"]
)
"""What the lexer keeps from the parser."""


def _token_positions(environment: jinja2.Environment, source: str) -> Iterator[tuple[int, int]]:
    """Line and offset of each token that the parser sees. The lexer drops white space only, so each
    token is the next place where its text stands."""
    position = 0
    try:
        for line, kind, text in environment.lexer.tokeniter(source, None):
            position = max(source.find(text, position), position)
            if kind not in _SKIPPED:
                yield line, position
            position += len(text)
    except TemplateSyntaxError:
        return


def _line_start(source: str, line: int) -> int:
    start = 0
    for _ in range(line - 1):
        start = source.find("\n", start) + 1
    return start
