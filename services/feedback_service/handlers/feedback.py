"""The use case of feedback: check the reports, and keep them in the journal."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from contender.contracts.feedback_service import LARGEST_REPORT, OUTCOME_CHARACTERS, FeedbackItem
from contender.contracts.problems import FieldError
from contender.contracts.values import LABEL_KINDS, OUTCOME, FeedbackKind, Outcome
from services.feedback_service.errors import InvalidFeedback, TooManyOutcomes
from shared.clock import Clock
from shared.events import FeedbackFrame, FeedbackGiven
from shared.ids import PredictionId, created_at, new_frame_id
from shared.journal import Journal, JournalRecord
from shared.topics import FEEDBACK, cloud_event_headers, split

_INT64 = 2**63
_LATEST_S = 253_402_300_800.0  # the year 10000
_REPORTED_ERRORS = 20
_MISSING = FieldError(OUTCOME, "is missing, and so is any other report")
_AHEAD_S = 300.0  # clocks differ; a time further ahead of now is an error, as it is for a prediction


@dataclass(frozen=True, slots=True)
class SubmitFeedback:
    """Accepts outcomes: they are in the journal when the call returns.

    Args:
        journal: takes one frame per shard, or several where one would grow large.
        clock: the time of an outcome that has none.
        partitions: number of shards.
        rows_limit: most outcomes in one call.
    """

    journal: Journal
    clock: Clock
    partitions: int
    rows_limit: int

    async def submit(self, feedback: Sequence[FeedbackItem], field: str = "feedback[{}].") -> int:
        """Keep the outcomes, all or none, and return their number.

        Args:
            feedback: the outcomes.
            field: what errors put before the name of an item's field; `{}` stands for the item's number.

        Raises:
            TooManyOutcomes: more than the limit.
            InvalidFeedback: an id, an outcome or a time is out of range.
            JournalFull: Kafka has not taken events for a while, or the disk is full.
        """
        if len(feedback) > self.rows_limit:
            raise TooManyOutcomes(f"{len(feedback)} outcomes in one call; at most {self.rows_limit} are accepted")
        now = self.clock.now()
        shards: dict[int, list[FeedbackGiven]] = {}
        errors: list[FieldError] = []
        for number, item in enumerate(feedback):
            parsed = self._parse(item, now)
            if isinstance(parsed, FieldError):
                errors.append(FieldError(field.format(number) + parsed.field, parsed.message))
            else:
                shard, event = parsed
                shards.setdefault(shard, []).append(event)
        if errors:
            detail = "; ".join(f"{error.field} {error.message}" for error in errors[:_REPORTED_ERRORS])
            raise InvalidFeedback(detail, errors[:_REPORTED_ERRORS])
        self.journal.append_all(
            [
                JournalRecord(FEEDBACK.name, shard, str(shard).encode(), _headers(now), part.encoded)
                for shard, events in sorted(shards.items())
                for part in split(events, _encoded)
            ]
        )
        await self.journal.flush()
        return len(feedback)

    def _parse(self, item: FeedbackItem, now: float) -> tuple[int, FeedbackGiven] | FieldError:
        try:
            identity = PredictionId.parse(item.prediction_id)
        except ValueError as error:
            return FieldError("prediction_id", str(error))
        if identity.shard >= self.partitions:
            return FieldError("prediction_id", f"names shard {identity.shard}; there are {self.partitions}")
        if created_at(identity.frame_id, now) > now + _AHEAD_S:
            return FieldError("prediction_id", "lies in the future: no router has answered it")
        kinds = list(item.reports)
        if len(kinds) != 1:
            return FieldError(kinds[1], f"can't be combined with {kinds[0]}") if kinds else _MISSING
        [(kind, value)] = item.reports.items()
        given_at = now if item.time is None else item.time
        for field, fault in ((kind, _value_fault(kind, value)), ("time", _time_fault(given_at, now))):
            if fault:
                return FieldError(field, fault)
        return identity.shard, FeedbackGiven(identity.frame_id, identity.row, value, given_at, kind=kind)


def _headers(now: float) -> list[tuple[str, bytes]]:
    return cloud_event_headers(FEEDBACK, new_frame_id(now))


def _encoded(events: Sequence[FeedbackGiven]) -> bytes:
    return FEEDBACK.encode(FeedbackFrame(list(events)))


def _time_fault(given_at: float, now: float) -> str:
    if not 0.0 <= given_at < _LATEST_S:
        return "must be in seconds since the Unix epoch"
    if given_at > now + _AHEAD_S:
        return f"lies {given_at - now:.0f} s ahead of now; at most {_AHEAD_S:.0f} s are accepted"
    return ""


def _value_fault(kind: FeedbackKind, outcome: Outcome) -> str:
    if kind not in LABEL_KINDS:
        is_small = not isinstance(outcome, str) and abs(outcome) <= LARGEST_REPORT
        return "" if is_small else f"must be a finite number of at most {LARGEST_REPORT:g} in size"
    if isinstance(outcome, str) and len(outcome) > OUTCOME_CHARACTERS:
        return f"has {len(outcome)} characters; at most {OUTCOME_CHARACTERS} are accepted"
    if isinstance(outcome, float) and not isfinite(outcome):
        return "must be a finite number"
    if isinstance(outcome, int) and not -_INT64 <= outcome < _INT64:
        return "must be an integer of at most 64 bits"
    return ""
