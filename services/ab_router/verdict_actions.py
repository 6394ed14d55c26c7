"""What the router's worker does about verdicts: it stops experiments, and keeps what was decided."""

from dataclasses import dataclass

from prometheus_client import Counter

from contender.contracts.experiments import ExperimentChange
from contender.contracts.feedback_service import VerdictEvent
from contender.contracts.limits import REASON_CHARACTERS
from services.ab_router.domain.experiments import ROUTER
from services.ab_router.domain.standing_verdicts import effect_of, evidence_of
from services.ab_router.handlers import Experiments
from services.ab_router.store import ExperimentStore
from shared.errors import Conflict, shortened
from shared.logs import logger

_ATTEMPTS = 10
"""Changes of others that may come between reading a revision and writing the next one."""

_LOG = logger(__name__)
ACTED = Counter(
    "contender_router_verdicts_total", "Events of topic verdicts by what was done: stop, decide or ignored", ["action"]
)


@dataclass(frozen=True, slots=True)
class VerdictActions:
    """Does what an event of the topic `verdicts` asks for, once: the stored revision says whether it is done.

    Args:
        store: the revisions as they are now, whoever has written them.
        experiments: changes them.
    """

    store: ExperimentStore
    experiments: Experiments

    async def act(self, event: VerdictEvent) -> None:
        """Do what is still to be done about an event; done twice it changes nothing.

        Raises:
            Unavailable: the database does not answer; the event must be tried again.
            ServiceError: the experiment's state does not allow the change, however often it is tried.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            history = await self.store.history(event.experiment)
            effect = effect_of(event, history[-1] if history else None)
            about = {"experiment": event.experiment, "number": event.number, "challenger": event.challenger}
            if effect is None:
                ACTED.labels("ignored").inc()
                _LOG.debug("nothing is to be done about an event", **about)
                return
            try:
                await self._apply(effect == "stop", event)
            except Conflict:  # somebody else has just changed it: its new state decides
                if attempt == _ATTEMPTS:
                    raise
            else:
                ACTED.labels(effect).inc()
                _LOG.info("an experiment follows its verdict", action=effect, status=event.status, **about)
                return

    async def _apply(self, stops: bool, event: VerdictEvent) -> None:  # noqa: FBT001
        evidence = evidence_of(event)
        if stops:
            change = ExperimentChange(shortened(event.sentence, REASON_CHARACTERS), ROUTER)
            await self.experiments.stop(event.experiment, change, evidence)
        else:
            await self.experiments.decide(event.experiment, evidence)
