"""How many arrays and objects JSON of strangers may hold: each costs fifty times its two bytes once it is read."""

MOST_PARTS = 100_000
"""Arrays and objects of a large text: 10,000 events have 20,000, and 4 MB of `[],` would take 100 MB and a second."""

_LARGE_BYTES = 256 * 1024


def has_too_many_parts(text: bytes) -> bool:
    """Whether reading it would cost too much; brackets within strings count too."""
    return len(text) > _LARGE_BYTES and text.count(b"[") + text.count(b"{") > MOST_PARTS
