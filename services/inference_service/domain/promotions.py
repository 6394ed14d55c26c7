"""The rules of promotions: what goes on record, and which one a rollback undoes."""

from collections.abc import Mapping, Sequence

from contender.contracts.inference_service import Promotion, PromotionRecord, Rollback
from contender.contracts.limits import EVIDENCE_CHARACTERS, NAME, NAME_WORDS, REASON_CHARACTERS
from shared.errors import FieldError, InvalidField

_CHARACTERS: Mapping[str, int] = {
    "changed_by": REASON_CHARACTERS,
    "reason": REASON_CHARACTERS,
    "override": REASON_CHARACTERS,
    "evidence": EVIDENCE_CHARACTERS,
}


def check(change: Promotion | Rollback) -> None:
    """Refuse texts that are too long, and evidence that names no experiment.

    Raises:
        InvalidField: it has all such fields.
    """
    faults = [
        FieldError(name, f"is longer than {most} characters")
        for name, most in _CHARACTERS.items()
        if len(getattr(change, name, "")) > most
    ]
    if isinstance(change, Promotion):
        faults += _evidence_faults(change)
    if faults:
        raise InvalidField("; ".join(f"{fault.field} {fault.message}" for fault in faults), faults)


def _evidence_faults(change: Promotion) -> list[FieldError]:
    faults = []
    if change.experiment and NAME.fullmatch(change.experiment) is None:
        faults.append(FieldError("experiment", f"must be {NAME_WORDS}"))
    if (change.verdict is not None or change.evidence) and not change.experiment:
        faults.append(FieldError("experiment", "is missing: name the experiment that the verdict is about"))
    if change.verdict is not None and change.verdict < 1:
        faults.append(FieldError("verdict", f"is {change.verdict}, and an experiment's verdicts count from 1"))
    return faults


def record_of(
    change: Promotion, model: str, history: Sequence[PromotionRecord], replaced: str, at: float
) -> PromotionRecord:
    """A promotion as the next one on record."""
    declared = {name: getattr(change, name) for name in Promotion.__struct_fields__}
    return PromotionRecord(**declared, model=model, number=len(history) + 1, at=at, replaced=replaced)


def undone_by_rollback(history: Sequence[PromotionRecord]) -> PromotionRecord | None:
    """The last promotion that is neither a rollback nor undone by one: the next rollback undoes it."""
    undone = {record.rolls_back for record in history}
    kept = (record for record in reversed(history) if record.rolls_back is None and record.number not in undone)
    return next(kept, None)


def rollback_of(undone: PromotionRecord, change: Rollback, number: int, replaced: str, at: float) -> PromotionRecord:
    """The record of going back to the champion that a promotion replaced."""
    return PromotionRecord(
        version=undone.replaced,
        changed_by=change.changed_by,
        reason=change.reason,
        model=undone.model,
        number=number,
        at=at,
        replaced=replaced,
        rolls_back=undone.number,
    )
