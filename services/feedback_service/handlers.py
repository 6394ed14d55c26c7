"""Use cases of the web process: take feedback, tell results. Knows no HTTP and no Kafka."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite

import msgspec

from contender.contracts.problems import FieldError
from contender.contracts.values import Outcome
from services.feedback_service.domain.answers import Results
from services.feedback_service.domain.results import results_of
from services.feedback_service.errors import InvalidFeedback, ResultsUnavailable, TooManyOutcomes, UnknownExperiment
from services.feedback_service.experiments import Experiments
from services.feedback_service.store import SnapshotStore, SnapshotsUnavailableError
from shared.clock import Clock
from shared.events import FeedbackFrame, FeedbackGiven
from shared.frames import split
from shared.ids import PredictionId, created_at, new_frame_id
from shared.journal import Journal, JournalRecord
from shared.topics import FEEDBACK, cloud_event_headers

OUTCOME_CHARACTERS = 1000
_INT64 = 2**63
_LATEST_S = 253_402_300_800.0  # the year 10000
_REPORTED_ERRORS = 20
_AHEAD_S = 300.0  # clocks differ; whatever lies further ahead of now is an error, as it is for a prediction
_RETRY_AFTER_S = 5


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
        if created_at(identity.frame_id, now) > now + _AHEAD_S:
            return FieldError("prediction_id", "was made in the future: no router has answered it")
        given_at = now if one.time is None else one.time
        for field, wrong in (("outcome", _outcome_error(one.outcome)), ("time", _time_error(given_at, now))):
            if wrong:
                return FieldError(field, wrong)
        return identity.shard, FeedbackGiven(identity.frame_id, identity.row, one.outcome, given_at)


def _headers(now: float) -> list[tuple[str, bytes]]:
    return cloud_event_headers(FEEDBACK, new_frame_id(now))


def _encoded(events: Sequence[FeedbackGiven]) -> bytes:
    return FEEDBACK.encode(FeedbackFrame(list(events)))


def _time_error(given_at: float, now: float) -> str:
    if not 0.0 <= given_at < _LATEST_S:
        return "is not in seconds since the Unix epoch"
    if given_at > now + _AHEAD_S:
        return f"lies {given_at - now:.0f} s ahead of now; at most {_AHEAD_S:.0f} s are accepted"
    return ""


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
        """Experiments that were announced or have predictions, by name.

        Raises:
            ResultsUnavailable: the store can't be reached.
        """
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
        with _unavailable():
            unannounced = sorted(set(await self.snapshots.experiments()) - set(found))
            for name in unannounced:
                results = results_of(name, None, await self.snapshots.read(name), self.clock.now())
                if results is not None:
                    variants = [variant.name for variant in results.variants]
                    found[name] = ExperimentSummary(name, results.status, results.model, results.metric, variants)
        return [found[name] for name in sorted(found)]

    async def results(self, name: str) -> Results:
        """The results of one experiment.

        Raises:
            UnknownExperiment: neither announced nor seen in a prediction.
            ResultsUnavailable: the store can't be reached.
        """
        with _unavailable():
            snapshots = await self.snapshots.read(name)
        results = results_of(name, self.experiments.get(name), snapshots, self.clock.now())
        if results is None:
            raise UnknownExperiment(f"there is no experiment {name!r}")
        return results


@contextmanager
def _unavailable() -> Iterator[None]:
    """Turn the store's error into one that callers see."""
    try:
        yield
    except SnapshotsUnavailableError as error:
        raise ResultsUnavailable(
            "the store of the results does not answer; ask again", retry_after_s=_RETRY_AFTER_S
        ) from error
