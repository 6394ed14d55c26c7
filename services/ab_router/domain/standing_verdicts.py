"""What an event of the topic `verdicts` means for its experiment."""

from typing import Literal

from contender.contracts.experiments import Evidence, ExperimentRevision
from contender.contracts.feedback_service import DECIDED, LASTING, VerdictEvent
from services.ab_router.domain.holds import CLOCKS_S, GUARDRAIL
from services.ab_router.domain.overlaps import is_in_force
from shared.errors import shortened

Effect = Literal["stop", "decide"]
_SENTENCE_CHARACTERS = 2_000
"""Several times a verdict's longest sentence: revisions with evidence must stay small, whoever has sent the event."""


def effect_of(event: VerdictEvent, revision: ExperimentRevision | None) -> Effect | None:
    """What is still to be done about an event; None where nothing is, or nothing any more.

    A breached guardrail stops the experiment where its design says so, whether it is the verdict or was found after
    one. Any other verdict that lasts is kept. An event may come twice, late, or from an earlier experiment of the name:
    then the newest revision says that there is nothing to do.

    Args:
        event: of the topic.
        revision: the newest one of the experiment that it names; None where there is no such experiment.
    """
    if revision is None or not is_in_force(revision) or not _is_of_this_run(event, revision):
        return None
    if event.status == GUARDRAIL and revision.auto_stop:
        return "stop"
    known = revision.verdicts.get(event.challenger)
    is_verdict = event.kind == DECIDED and event.status in LASTING
    return "decide" if is_verdict and (known is None or known.number < event.number) else None


def evidence_of(event: VerdictEvent) -> Evidence:
    """The event as what a change rests on."""
    return Evidence(
        experiment=event.experiment,
        number=event.number,
        challenger=event.challenger,
        status=event.status,
        sentence=shortened(event.sentence, _SENTENCE_CHARACTERS),
        at=event.at,
    )


def _is_of_this_run(event: VerdictEvent, revision: ExperimentRevision) -> bool:
    """Whether the event is about this experiment, and not one of its name in a database that was emptied since."""
    has_begun = revision.started_at is not None and revision.started_at <= event.at + CLOCKS_S
    names = {variant.name for variant in revision.variants}
    return has_begun and event.model == revision.model and event.challenger in names
