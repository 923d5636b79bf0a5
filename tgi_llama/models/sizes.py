"""Sizes as people read them."""

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def size_text(n_bytes: float) -> str:
    """For example ``2.1 GB``, in powers of 1000, as the hub shows sizes."""
    for unit in _UNITS[:-1]:
        if abs(n_bytes) < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "bytes" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} {_UNITS[-1]}"
