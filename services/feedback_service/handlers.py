"""Use cases of the web process: submit feedback, read results. Knows no HTTP and no Kafka."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite

from contender.contracts.feedback_service import OUTCOME_CHARACTERS, ExperimentSummary, FeedbackItem, Results
from contender.contracts.problems import FieldError
from contender.contracts.values import Outcome
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

_INT64 = 2**63
_LATEST_S = 253_402_300_800.0  # the year 10000
_REPORTED_ERRORS = 20
_AHEAD_S = 300.0  # clocks differ; a time further ahead of now is an error, as it is for a prediction
_RETRY_AFTER_S = 5


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
        given_at = now if item.time is None else item.time
        for field, fault in (("outcome", _outcome_fault(item.outcome)), ("time", _time_fault(given_at, now))):
            if fault:
                return FieldError(field, fault)
        return identity.shard, FeedbackGiven(identity.frame_id, identity.row, item.outcome, given_at)


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


def _outcome_fault(outcome: Outcome) -> str:
    if isinstance(outcome, str) and len(outcome) > OUTCOME_CHARACTERS:
        return f"has {len(outcome)} characters; at most {OUTCOME_CHARACTERS} are accepted"
    if isinstance(outcome, float) and not isfinite(outcome):
        return "must be a finite number"
    if isinstance(outcome, int) and not -_INT64 <= outcome < _INT64:
        return "must be an integer of at most 64 bits"
    return ""


@dataclass(frozen=True, slots=True)
class ReadResults:
    """Reads what is known of experiments.

    Args:
        snapshots: what the workers have published.
        experiments: what the router has announced.
        clock: moves the watermark of experiments that have stopped.
    """

    snapshots: SnapshotStore
    experiments: Experiments
    clock: Clock

    async def list_experiments(self) -> list[ExperimentSummary]:
        """Experiments that were announced or have predictions, by name.

        Raises:
            ResultsUnavailable: the store can't be reached.
        """
        summaries = {
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
            for name in sorted(set(await self.snapshots.experiments()) - set(summaries)):
                results = results_of(name, None, await self.snapshots.read(name), self.clock.now())
                if results is not None:
                    variants = [variant.name for variant in results.variants]
                    summaries[name] = ExperimentSummary(name, results.status, results.model, results.metric, variants)
        return [summaries[name] for name in sorted(summaries)]

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
