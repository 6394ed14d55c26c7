"""How many arrays and objects JSON of strangers may hold: each costs fifty times its two bytes once it is read."""

_LARGE_BYTES = 256 * 1024


def has_too_many_parts(text: bytes, most: int) -> bool:
    """Whether a large text has more arrays and objects than `most`; brackets within strings count too."""
    return len(text) > _LARGE_BYTES and text.count(b"[") + text.count(b"{") > most
