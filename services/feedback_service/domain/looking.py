"""One look at an experiment: its results, and what is remembered after it."""

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from contender.contracts.ab_router import ExperimentRevision
from contender.contracts.feedback_service import Results, VerdictEvent
from services.feedback_service.domain.memory import Memory
from services.feedback_service.domain.results import results_of
from services.feedback_service.domain.snapshots import PartitionSnapshot


@dataclass(frozen=True, slots=True)
class Look:
    """The results of an experiment, and the memory after they were looked at."""

    results: Results
    memory: Memory


def look_at(
    name: str,
    revision: ExperimentRevision | None,
    snapshots: Sequence[PartitionSnapshot],
    now: float,
    memory: Memory,
) -> Look | None:
    """Look at an experiment; None when there is neither a revision nor a prediction of it.

    Args:
        name: the experiment's.
        revision: its newest.
        snapshots: its groups in every partition.
        now: the time of the look, in seconds since the Unix epoch.
        memory: what earlier looks have left.
    """
    results = results_of(name, revision, snapshots, now)
    if results is None:
        return None
    verdicts = [event for event in memory.events if event.kind == "decided"]
    if not verdicts and results.verdict.decided:
        verdicts = [_decided(results, revision, now, number=len(memory.events) + 1)]
        memory = replace(memory, events=[*memory.events, *verdicts])
    if verdicts:
        first = verdicts[0]
        verdict = replace(
            results.verdict,
            status=first.status,
            sentence=first.sentence,
            challenger=first.challenger,
            decided_at=first.at,
        )
        results = replace(results, verdict=verdict, verdicts=[verdict])
    return Look(results, memory)


def _decided(results: Results, revision: ExperimentRevision | None, now: float, *, number: int) -> VerdictEvent:
    challenger = next(iter(results.effects))
    return VerdictEvent(
        experiment=results.experiment,
        number=number,
        kind="decided",
        challenger=challenger,
        status=results.verdict.status,
        sentence=results.verdict.sentence,
        at=now,
        model=results.model,
        metric=results.metric,
        revision=revision.revision if revision else 0,
        effect=results.effects[challenger].get(results.metric),
        offsets=results.offsets,
    )
