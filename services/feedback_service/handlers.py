"""Use cases of the web process: take feedback, tell results. Knows no HTTP and no Kafka."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import msgspec

from services.feedback_service.domain.answers import Results
from services.feedback_service.domain.results import results_of
from services.feedback_service.errors import InvalidFeedback, TooManyOutcomes, UnknownExperiment
from services.feedback_service.experiments import Experiments
from services.feedback_service.store import SnapshotStore
from shared.clock import Clock
from shared.events import FeedbackFrame, FeedbackGiven, Outcome
from shared.frames import split
from shared.ids import PredictionId, new_frame_id
from shared.journal import Journal, JournalRecord
from shared.problems import FieldError
from shared.topics import FEEDBACK, cloud_event_headers

OUTCOME_CHARACTERS = 1000
_INT64 = 2**63
_LATEST_S = 253_402_300_800.0  # the year 10000
_REPORTED_ERRORS = 20


class Feedback(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The outcome of one prediction. `time`, in seconds since the Unix epoch, is when it was known; default now."""

    prediction_id: str
    outcome: Outcome
    time: float | None = None


class ExperimentSummary(msgspec.Struct, frozen=True):
    """An experiment in the list of known ones."""

    name: str
    status: str
    model: str
    metric: str
    variants: list[str]


@dataclass(frozen=True, slots=True)
class TakeFeedback:
    """Takes outcomes in: they are in the journal when the call returns.

    Args:
        journal: where frames go, one per shard, or several where one would grow large.
        clock: says when an outcome without a time was given.
        partitions: shards there are.
        rows_limit: most outcomes in one call.
    """

    journal: Journal
    clock: Clock
    partitions: int
    rows_limit: int

    async def take(self, feedback: Sequence[Feedback], field: str = "feedback[{}].") -> int:
        """Keep the outcomes, all or none, and return how many they are.

        Args:
            feedback: the outcomes.
            field: how an error names the fields of one; `{}` stands for its number.

        Raises:
            TooManyOutcomes: more than the limit.
            InvalidFeedback: an id, an outcome or a time can't be what it must be.
            JournalFull: Kafka has not taken events for a while, or the disk is full.
        """
        if len(feedback) > self.rows_limit:
            raise TooManyOutcomes(f"{len(feedback)} outcomes in one call; at most {self.rows_limit} are taken")
        now = self.clock.now()
        shards: dict[int, list[FeedbackGiven]] = {}
        errors: list[FieldError] = []
        for number, one in enumerate(feedback):
            prefix = field.format(number)
            parsed = self._parse(one, now)
            if isinstance(parsed, FieldError):
                errors.append(FieldError(prefix + parsed.field, parsed.message))
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

    def _parse(self, one: Feedback, now: float) -> tuple[int, FeedbackGiven] | FieldError:
        try:
            identity = PredictionId.parse(one.prediction_id)
        except ValueError as error:
            return FieldError("prediction_id", str(error))
        if identity.shard >= self.partitions:
            return FieldError("prediction_id", f"names shard {identity.shard}; there are {self.partitions}")
        wrong = _outcome_error(one.outcome)
        if wrong:
            return FieldError("outcome", wrong)
        given_at = now if one.time is None else one.time
        if not 0.0 <= given_at < _LATEST_S:
            return FieldError("time", "is not in seconds since the Unix epoch")
        return identity.shard, FeedbackGiven(identity.frame_id, identity.row, one.outcome, given_at)


def _headers(now: float) -> list[tuple[str, bytes]]:
    return cloud_event_headers(FEEDBACK, new_frame_id(now))


def _encoded(events: Sequence[FeedbackGiven]) -> bytes:
    return FEEDBACK.encode(FeedbackFrame(list(events)))


def _outcome_error(outcome: Outcome) -> str:
    if isinstance(outcome, str) and len(outcome) > OUTCOME_CHARACTERS:
        return f"has {len(outcome)} characters; at most {OUTCOME_CHARACTERS} are taken"
    if isinstance(outcome, float) and not isfinite(outcome):
        return "is not a finite number"
    if isinstance(outcome, int) and not -_INT64 <= outcome < _INT64:
        return "is an integer beyond 64 bits"
    return ""


@dataclass(frozen=True, slots=True)
class TellResults:
    """Tells what is known of experiments.

    Args:
        snapshots: what the workers have published.
        experiments: what the router has announced.
        clock: moves the watermark of experiments that have stopped.
    """

    snapshots: SnapshotStore
    experiments: Experiments
    clock: Clock

    async def known(self) -> list[ExperimentSummary]:
        """Experiments that were announced or have predictions, by name."""
        found = {
            revision.name: ExperimentSummary(
                revision.name,
                revision.status,
                revision.model,
                revision.metric,
                [variant.name for variant in revision.variants],
            )
            for revision in self.experiments.all()
        }
        snapshots = await self.snapshots.read()
        for name in {group.experiment for snapshot in snapshots for group in snapshot.groups} - set(found):
            results = results_of(name, None, snapshots, self.clock.now())
            if results is not None:
                variants = [variant.name for variant in results.variants]
                found[name] = ExperimentSummary(name, results.status, results.model, results.metric, variants)
        return [found[name] for name in sorted(found)]

    async def results(self, name: str) -> Results:
        """The results of one experiment.

        Raises:
            UnknownExperiment: neither announced nor seen in a prediction.
        """
        results = results_of(name, self.experiments.get(name), await self.snapshots.read(), self.clock.now())
        if results is None:
            raise UnknownExperiment(f"there is no experiment {name!r}")
        return results
