"""What a look finds that stays: a verdict, and what puts it in question later."""

from collections.abc import Mapping, Sequence

from contender.contracts.feedback_service import (
    CONTRADICTED,
    DECIDED,
    GUARDRAIL,
    QUESTIONED,
    EventKind,
    Verdict,
    VerdictEvent,
    VerdictStatus,
)
from services.feedback_service.domain.assessing import Assessment
from services.feedback_service.domain.design import ExperimentDesign
from services.feedback_service.domain.memory import Memory
from services.feedback_service.domain.verdicts import contradiction, harm_shown, question, standing


def verdict_with_events(
    assessment: Assessment,
    memory: Memory,
    design: ExperimentDesign,
    *,
    now: float,
    offsets: Mapping[str, Mapping[str, int]],
) -> tuple[Verdict, Memory]:
    """The verdict on a challenger: the one that was reached, or that of this look; and the memory with what is new.

    A verdict is reached once and stays. A check that fails later puts it in question, once for each check, and looks
    that exclude each other contradict it, once.
    """
    challenger = assessment.challenger

    def found(kind: EventKind, status: VerdictStatus, sentence: str) -> VerdictEvent:
        return VerdictEvent(
            experiment=design.name,
            number=len(memory.events) + 1,
            kind=kind,
            challenger=challenger,
            status=status,
            sentence=sentence,
            at=now,
            model=design.model,
            metric=design.metric.name,
            revision=design.revision,
            effect=assessment.effects.get(design.metric.name),
            whole_days=assessment.evidence.day_count.whole,
            offsets={topic: dict(partitions) for topic, partitions in offsets.items()},
        )

    decided = memory.verdict_on(challenger)
    if decided is None:
        if not assessment.verdict.decided:
            return assessment.verdict, memory
        decided = found(DECIDED, assessment.verdict.status, assessment.verdict.sentence)
        memory = _with(memory, decided)
        return standing(decided, [], design.status), memory
    known = {(event.kind, event.status) for event in memory.findings_on(challenger)}
    for status in _later(assessment, decided):
        if (QUESTIONED, status) not in known:
            sentence = question(assessment.contest, assessment.evidence, status, now)
            memory = _with(memory, found(QUESTIONED, status, sentence))
    effect = assessment.evidence.effect
    is_empty = effect is not None and effect.intervals.two_sided.is_empty
    if effect is not None and is_empty and (CONTRADICTED, decided.status) not in known:
        sentence = contradiction(assessment.contest, effect.look, now)
        memory = _with(memory, found(CONTRADICTED, decided.status, sentence))
    return standing(decided, memory.findings_on(challenger), design.status), memory


def _later(assessment: Assessment, decided: VerdictEvent) -> Sequence[VerdictStatus]:
    """The checks that fail now, and the guardrail that is breached unless it is what was decided."""
    is_harm = harm_shown(assessment.evidence) is not None and decided.status != GUARDRAIL
    return [*assessment.failures, *([GUARDRAIL] if is_harm else [])]


def _with(memory: Memory, event: VerdictEvent) -> Memory:
    return Memory(memory.challengers, memory.split_p, [*memory.events, event])
