"""Regular expressions as clients write them, Python's mostly, in the syntax of llguidance's.

That is the syntax of Rust's ``regex`` crate, without look-around and back-references. The whole
text has to match, so that ``^`` and ``$`` at the ends change nothing, and lazy quantifiers neither.
"""

import re

from tgi_llama.errors import ValidationError

_PIECE = re.compile(
    r"""
      (?P<escape> \\[pPxuU]\{[^{}]*\} | \\. )
    | (?P<class> \[ \^? \]? (?: \\. | \[:\^?[a-z]+:\] | [^\]\\] )* \] )
    | (?P<group> \(\? (?: P= | [=!>] | <[=!] | \( ) )
    | (?P<possessive> (?: (?<!^) [*+?] | \{ \d+ (?: ,\d* )? \} ) \+ )
    | (?P<count> \{ \d+ (?: ,\d* )? \} )
    | (?P<at_most> \{ , (?P<most> \d+ ) \} )
    | (?P<brace> \{ )
    | (?P<lonely> \\ )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)

_CLASS_PIECE = re.compile(r"\\.|\[:\^?[a-z]+:\]|\[|&&|~~|.", re.DOTALL)

_ESCAPES = {
    r"\Z": r"\z",
    # Rust's \w has combining marks and no fractions, its \s no separators of files and records.
    r"\w": r"[\p{L}\p{N}_]",
    r"\W": r"[^\p{L}\p{N}_]",
    r"\s": r"[\s\x1c-\x1f]",
    r"\S": r"[^\s\x1c-\x1f]",
}
_CLASS_ESCAPES = {**_ESCAPES, r"\b": r"\x08"}

_GROUPS = {
    "(?P=": "back-references",
    "(?=": "look-ahead",
    "(?!": "look-ahead",
    "(?<=": "look-behind",
    "(?<!": "look-behind",
    "(?>": "atomic groups",
    "(?(": "conditional groups",
}


def to_rust(pattern: str, *, field: str) -> str:
    """The same pattern for llguidance. What is wrong with it otherwise is left for llguidance to
    say. Raises ValidationError for what it has no equal of."""
    return "".join(_translate(match, field) for match in _PIECE.finditer(pattern))


def _translate(match: re.Match[str], field: str) -> str:
    text = match.group()
    match match.lastgroup:
        case "escape":
            if text[1] in "123456789":
                _refuse("back-references", text, field)
            return _ESCAPES.get(text, text)
        case "class":
            return "".join(map(_in_class, _CLASS_PIECE.findall(text[1:-1]))).join("[]")
        case "group":
            _refuse(_GROUPS[text], text, field)
        case "possessive":
            _refuse("possessive quantifiers", text, field)
        case "lonely":
            raise ValidationError(
                "grammar is not valid: the pattern ends with a backslash", field=field
            )
        case "at_most":
            return f"{{0,{match['most']}}}"
        case "brace":
            return r"\{"
    return text


def _in_class(piece: str) -> str:
    """Python has no classes inside of classes, and no operators on them."""
    if piece in ("[", "&&", "~~"):
        return "".join("\\" + letter for letter in piece)
    return _CLASS_ESCAPES.get(piece, piece)


def _refuse(what: str, text: str, field: str) -> None:
    raise ValidationError(f"grammar is not valid: {what} ({text}) are not supported", field=field)
