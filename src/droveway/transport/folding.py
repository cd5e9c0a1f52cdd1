"""This file knows how to read the folded header lines that RFC 9112 (5.2) deprecates."""

import re
from typing import Final

_FOLD: Final = re.compile(rb"\r\n[ \t]+")
_INFORMATIONAL: Final = re.compile(rb"HTTP/1\.[01] 1")


def unfolded(raw: bytes) -> bytes | None:
    """Join the folded lines of the heads that bytes begin with.

    Args:
        raw: Any informational heads, the final head, and perhaps some of the body.

    Returns:
        The same on unfolded lines, the body as it was; None while the final head is not whole.
    """
    joined = b""
    while True:
        head, end, raw = raw.partition(b"\r\n\r\n")
        if not end:
            return None
        joined += _FOLD.sub(b" ", head) + end
        if not _INFORMATIONAL.match(head):
            return joined + raw
