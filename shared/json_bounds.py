"""How many arrays and objects a stranger's JSON may hold: decoded, each takes fifty times its two bytes."""

_LARGE_BYTES = 256 * 1024


def has_too_many_parts(text: bytes, most: int) -> bool:
    """Whether a large text has more arrays and objects than `most`; brackets within strings count too."""
    return len(text) > _LARGE_BYTES and text.count(b"[") + text.count(b"{") > most
