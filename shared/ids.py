"""Frame ids and prediction ids: time-ordered, unguessable, and naming where their frame lies."""

import re
import secrets
from dataclasses import dataclass
from functools import lru_cache

# Crockford's base 32 (crockford.com/base32.html): sorts as its numbers do and has no look-alikes.
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_TIME_CHARACTERS = 10
_RANDOM_CHARACTERS = 16
FRAME_ID_LENGTH = _TIME_CHARACTERS + _RANDOM_CHARACTERS
_FRAME_ID = re.compile(rf"[0-7][{ALPHABET}]{{{FRAME_ID_LENGTH - 1}}}")
_PREDICTION_ID = re.compile(rf"([0-7][{ALPHABET}]{{{FRAME_ID_LENGTH - 1}}})-([0-9]{{1,5}})-([0-9]{{1,6}})")


def _base32(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 32)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))


def new_frame_id(now: float) -> str:
    """A fresh id of 26 characters: 48 bits of milliseconds, then 80 random bits (as in the ULID specification).

    Args:
        now: seconds since the Unix epoch.
    """
    return _base32(int(now * 1000), _TIME_CHARACTERS) + _base32(secrets.randbits(80), _RANDOM_CHARACTERS)


def frame_id_of(digest: bytes) -> str:
    """The frame id that stands for a content hash: the same content, the same id. Takes the first 128 bits."""
    return _base32(int.from_bytes(digest[:16]), FRAME_ID_LENGTH)


@dataclass(frozen=True, slots=True)
class PredictionId:
    """Where a prediction lies: its frame, the partition that holds the frame, and its row there."""

    frame_id: str
    shard: int
    row: int

    def __str__(self) -> str:
        return f"{self.frame_id}-{self.shard}-{self.row}"

    @classmethod
    def parse(cls, text: str) -> "PredictionId":
        """Read an id as an application sent it.

        Raises:
            ValueError: the text is not `<frame id>-<shard>-<row>`.
        """
        match = _PREDICTION_ID.fullmatch(text)
        if match is None:
            raise ValueError("is not a prediction id: expected <frame id>-<shard>-<row> as the router answered it")
        return cls(match[1], int(match[2]), int(match[3]))


@lru_cache(maxsize=1024)
def created_at(frame_id: str, default: float) -> float:
    """When a frame id was made, in seconds since the Unix epoch; `default` for ids that are not ours.

    Cached, since the reports on one frame tend to come together.
    """
    if _FRAME_ID.fullmatch(frame_id) is None:
        return default
    milliseconds = 0
    for character in frame_id[:_TIME_CHARACTERS]:
        milliseconds = milliseconds * 32 + ALPHABET.index(character)
    return milliseconds / 1000.0
