"""The controller: it moves the traffic of running experiments by their schedule or by their results."""

from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import Counter, Gauge

from contender.contracts.experiments import ExperimentRevision
from contender.contracts.limits import REASON_CHARACTERS
from services.ab_router.clients import CallError
from services.ab_router.domain.moves import Hold, Move, next_move, waits
from services.ab_router.handlers import Experiments
from services.ab_router.results_client import ResultsReader
from shared.clock import Clock
from shared.errors import ServiceError, Unavailable, shortened
from shared.logs import logger

_LOG = logger(__name__)
MOVES = Counter("contender_router_moves_total", "Allocations changed by schedule or by results", ["experiment"])
HELD = Gauge(
    "contender_router_allocation_held",
    "1 while a canary or a bandit holds its allocation for this cause; the log has the sentence",
    ["experiment", "cause"],
)


@dataclass(frozen=True, slots=True)
class Controller:
    """Moves the traffic of running experiments by their schedule or their results, where nothing speaks against it.

    Args:
        experiments: reads and changes them.
        results: what is known of them.
        clock: the time of decisions.
        is_in_charge: whether this process is the one that moves traffic.
        age_limit_s: results that are older move nothing.
    """

    experiments: Experiments
    results: ResultsReader
    clock: Clock
    is_in_charge: Callable[[], bool]
    age_limit_s: float
    _held: dict[str, Hold] = field(default_factory=dict)

    async def look(self) -> None:
        """Look at every running canary and bandit once, if this process is the one that moves traffic.

        Whether it is or not, the revisions that wait to be sent are sent.

        Raises:
            Unavailable: the database does not answer.
        """
        await self.experiments.refresh()
        running: list[ExperimentRevision] = []
        if self.is_in_charge():
            running = [
                each for each in self.experiments.all() if each.status == "running" and (each.canary or each.bandit)
            ]
        for name in set(self._held) - {revision.name for revision in running}:
            self._release(name)
        for revision in running:
            await self._look_at(revision)

    async def _look_at(self, revision: ExperimentRevision) -> None:
        move = await self._next_move(revision)
        if isinstance(move, Move) and self.is_in_charge():
            move = await self._carry_out(revision, move)
        if isinstance(move, Hold):
            self._note(revision.name, move)
        else:
            self._release(revision.name)

    async def _next_move(self, revision: ExperimentRevision) -> Move | Hold:
        hold = waits(revision, self.clock.now())
        if hold is not None:  # whatever the results say: a look at them costs the feedback service some work
            return hold
        try:
            results = await self.results.results(revision.name)
        except CallError as error:
            return Hold("no results", f"the results can't be read: {error}")
        return next_move(revision, results, self.clock.now(), self.age_limit_s)

    async def _carry_out(self, revision: ExperimentRevision, move: Move) -> Move | Hold:
        reason = shortened(move.reason, REASON_CHARACTERS)
        try:
            await self.experiments.reallocate(
                revision.name, move.weights, move.coverage, move.step, reason, revision=revision.revision
            )
        except Unavailable:
            raise
        except ServiceError as error:
            return Hold("refused", error.detail)
        MOVES.labels(revision.name).inc()
        _LOG.info("an allocation was changed", experiment=revision.name, step=move.step, reason=move.reason)
        return move

    def _note(self, name: str, hold: Hold) -> None:
        """Show why an allocation is held; the log gets a line when the cause changes."""
        known = self._held.get(name)
        if known is None or known.cause != hold.cause:
            self._release(name)
            HELD.labels(name, hold.cause).set(1)
            _LOG.info("an allocation is held", experiment=name, cause=hold.cause, reason=hold.reason)
        self._held[name] = hold

    def _release(self, name: str) -> None:
        known = self._held.pop(name, None)
        if known is not None:
            HELD.remove(name, known.cause)
