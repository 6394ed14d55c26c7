"""The offsets up to which a partition's two topics have been applied."""

from math import inf

import msgspec

from contender.contracts.topics import FEEDBACK, PREDICTIONS


class Marks(msgspec.Struct, frozen=True, array_like=True):
    """The last applied offsets of both topics, and when those records were sent, in seconds since the Unix epoch.

    `since` is when the first counted record was sent, where the topic `predictions` no longer held those before it.
    """

    predictions: int = -1
    feedback: int = -1
    predictions_sent_at: float = -inf
    feedback_sent_at: float = -inf
    since: float | None = None

    @property
    def offsets(self) -> dict[str, int]:
        """The offsets by topic, of those topics that were read."""
        offsets = {PREDICTIONS: self.predictions, FEEDBACK: self.feedback}
        return {topic: offset for topic, offset in offsets.items() if offset >= 0}

    def covers(self, other: "Marks") -> bool:
        """Whether everything up to the other marks has been applied."""
        return self.predictions >= other.predictions and self.feedback >= other.feedback

    def joined(self, other: "Marks") -> "Marks":
        """The higher of both offsets."""
        return Marks(max(self.predictions, other.predictions), max(self.feedback, other.feedback))

    def after(self, topic: str, offset: int, sent_at: float) -> "Marks":
        """The marks once a record has been applied."""
        if topic == PREDICTIONS:
            newest = max(self.predictions_sent_at, sent_at)
            since = sent_at if offset > self.predictions + 1 and sent_at < inf else self.since
            return msgspec.structs.replace(self, predictions=offset, predictions_sent_at=newest, since=since)
        newest = max(self.feedback_sent_at, sent_at)
        return msgspec.structs.replace(self, feedback=offset, feedback_sent_at=newest)

    def encode(self) -> bytes:
        """The marks as they are stored."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, value: bytes | None) -> "Marks":
        """Read stored marks; None: nothing has been applied yet."""
        return cls() if value is None else msgspec.msgpack.decode(value, type=cls)
