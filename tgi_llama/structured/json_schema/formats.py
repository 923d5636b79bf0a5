"""Values of ``format`` and the patterns that enforce them.

llguidance has patterns for most of these, but its dates know no leap years, so all of them are
written here and go the same way as ``pattern``. Where a standard allows what common parsers refuse
(leap seconds, lower-case ``t`` and ``z``, the year 0000), the pattern leaves it out.
"""

_LEAP_YEAR = "(?:\\d\\d(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_YEAR = "(?:\\d{3}[1-9]|\\d\\d[1-9]0|\\d[1-9]00|[1-9]000)"
_DATE = (
    f"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|02-(?:0[1-9]|1\\d|2[0-8]))"
    f"|{_LEAP_YEAR}-02-29)"
)
_CLOCK = "(?:[01]\\d|2[0-3]):[0-5]\\d"
_TIME = f"{_CLOCK}:[0-5]\\d(?:\\.\\d{{1,6}})?(?:Z|[+-]{_CLOCK})"
_OCTET = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
_IPV4 = f"(?:{_OCTET}\\.){{3}}{_OCTET}"
_H16 = "[0-9A-Fa-f]{1,4}"
_LS32 = f"(?:{_H16}:{_H16}|{_IPV4})"
_IPV6 = "|".join(
    (
        f"(?:{_H16}:){{6}}{_LS32}",
        f"::(?:{_H16}:){{5}}{_LS32}",
        *(
            f"(?:(?:{_H16}:){{0,{before}}}{_H16})?::(?:{_H16}:){{{4 - before}}}{_LS32}"
            for before in range(5)
        ),
        f"(?:(?:{_H16}:){{0,5}}{_H16})?::{_H16}",
        f"(?:(?:{_H16}:){{0,6}}{_H16})?::",
    )
)
_LABEL = "[A-Za-z\\d](?:[A-Za-z\\d-]{0,61}[A-Za-z\\d])?"
_HOSTNAME = f"{_LABEL}(?:\\.{_LABEL})*"
_ATOM = "[A-Za-z\\d!#$%&'*+/=?^_`{|}~-]+"
_UNRESERVED = "[A-Za-z\\d._~!$&'()*+,;=-]"
_ESCAPED = "%[0-9A-Fa-f]{2}"
_PATH_CHAR = f"(?:[A-Za-z\\d._~!$&'()*+,;=:@-]|{_ESCAPED})"
_QUERY = f"(?:{_PATH_CHAR}|[/?])*"
_SEGMENTS = f"(?:/{_PATH_CHAR}*)*"
_AUTHORITY = (
    f"(?:(?:[A-Za-z\\d._~!$&'()*+,;=:-]|{_ESCAPED})*@)?"
    f"(?:\\[(?:{_IPV6})\\]|(?:{_UNRESERVED}|{_ESCAPED})*)(?::\\d*)?"
)
_ROOTED = f"/(?:{_PATH_CHAR}+{_SEGMENTS})?"
_TAIL = f"(?:\\?{_QUERY})?(?:#{_QUERY})?"
_URI = f"[A-Za-z][A-Za-z\\d+.-]*:(?://{_AUTHORITY}{_SEGMENTS}|{_ROOTED}|{_PATH_CHAR}+{_SEGMENTS}|){_TAIL}"
_TIME_PART = "T(?:\\d+H(?:\\d+M(?:\\d+S)?)?|\\d+M(?:\\d+S)?|\\d+S)"
_DURATION = (
    f"P(?:(?:\\d+Y(?:\\d+M(?:\\d+D)?)?|\\d+M(?:\\d+D)?|\\d+D)(?:{_TIME_PART})?|{_TIME_PART}|\\d+W)"
)

PATTERNS = {
    name: f"^(?:{pattern})$"
    for name, pattern in {
        "date": _DATE,
        "time": _TIME,
        "date-time": f"{_DATE}T{_TIME}",
        "duration": _DURATION,
        "email": f"{_ATOM}(?:\\.{_ATOM})*@{_HOSTNAME}",
        "hostname": _HOSTNAME,
        "ipv4": _IPV4,
        "ipv6": _IPV6,
        "uuid": "[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}",
        "uri": _URI,
        "json-pointer": "(?:/(?:[^/~]|~[01])*)*",
    }.items()
}

# OpenAPI's formats of integers, and their bounds.
INTEGERS = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}

# Formats of the standard that no pattern here enforces.
UNSUPPORTED = {
    "idn-email",
    "idn-hostname",
    "iri",
    "iri-reference",
    "regex",
    "relative-json-pointer",
    "uri-reference",
    "uri-template",
}
