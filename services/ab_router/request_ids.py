"""Request ids: under which key the answer of a call is kept, and as which bytes."""

import secrets
import zlib
from dataclasses import dataclass
from hashlib import blake2b

from prometheus_client import Counter

from services.ab_router.errors import RequestIdReusedError, RequestInFlightError

CALLS = Counter("contender_request_ids_total", "Calls with a request id, by what became of them", ["outcome"])
_IN_FLIGHT, _PLAIN, _COMPRESSED = b"?", b"=", b"z"
_DIGEST = slice(1, 17)
"""Where the digest of the payload stands in markers and entries, behind their kind."""

_COMPRESSED_FROM_BYTES = 200
"""Shorter answers hardly get shorter."""


@dataclass(frozen=True, slots=True)
class IdentifiedCall:
    """A call that its caller may send again. Ids of different callers, and for different models, are different.

    Attributes:
        payload: what has to be the same when the call is sent again.
    """

    caller: str
    model: str
    request_id: str
    payload: bytes

    @property
    def key(self) -> bytes:
        """The key in the store; it has the same length for all."""
        scope = [part.encode("utf-8", "surrogatepass") for part in (self.caller, self.model, self.request_id)]
        return b"answer:" + _digest(b"".join(len(part).to_bytes(4) + part for part in scope))

    def new_marker(self) -> bytes:
        """What is kept while the call is being answered: no two markers are the same."""
        return _IN_FLIGHT + _digest(self.payload) + secrets.token_bytes(8)


@dataclass(frozen=True, slots=True)
class DeduplicatedAnswer:
    """The bytes of an answer, and whether an earlier call got them first."""

    body: bytes
    is_replayed: bool = False


def answer_kept(kept: bytes, marker: bytes) -> DeduplicatedAnswer:
    """The answer that is kept for the call of a marker.

    Raises:
        RequestIdReusedError: it is that of a call with another payload.
        RequestInFlightError: the call is being answered.
    """
    kind, body = kept[:1], kept[_DIGEST.stop :]
    if kept[_DIGEST] != marker[_DIGEST]:
        CALLS.labels("reused").inc()
        raise RequestIdReusedError.at(
            "request_id", "was sent with another body; give each call an id of its own, and repeat a call unchanged"
        )
    if kind == _IN_FLIGHT:
        CALLS.labels("in flight").inc()
        raise RequestInFlightError("a call with this request_id is being answered; send it again in a moment")
    CALLS.labels("replayed").inc()
    return DeduplicatedAnswer(zlib.decompress(body) if kind == _COMPRESSED else body, is_replayed=True)


def entry_of(marker: bytes, body: bytes) -> bytes:
    """What is kept of an answer: which payload it belongs to, and its bytes."""
    digest = marker[_DIGEST]
    if len(body) < _COMPRESSED_FROM_BYTES:
        return _PLAIN + digest + body
    return _COMPRESSED + digest + zlib.compress(body, level=1)


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=_DIGEST.stop - _DIGEST.start).digest()
