"""What a file would change on an installation, step by step, and what of it can't be applied."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from contender.client import Client

SHORT = 12
"""Characters of a version beside a name."""
SIGNS = {"new": "+", "changed": "~", "same": "="}


class Phase(IntEnum):
    """When an action's turn is: drafts assign no unit, so what is refused most often comes before what counts."""

    REGISTER = 0
    DECLARE = 1
    STOP = 2
    PAUSE = 3
    PROMOTE = 4
    REVISE = 5
    RAMP = 6
    START = 7
    PAUSE_STARTED = 8


@dataclass(frozen=True, slots=True)
class Who:
    """Who applies a file and why; `override` starts experiments although their traffic does not suit them."""

    changed_by: str = ""
    reason: str = ""
    override: str = ""

    @property
    def fields(self) -> dict[str, str]:
        """The fields of a change's body."""
        return {"changed_by": self.changed_by, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Action:
    """One call, in its phase."""

    phase: Phase
    call: Callable[[Client, Who], object]


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of one thing in the file.

    Attributes:
        subject: such as `experiment churn-2`.
        kind: `new`, `changed` or `same`.
        details: what changes, each in words.
        actions: the calls that it takes.
        faults: why it can't be applied.
    """

    subject: str
    kind: str
    details: Sequence[str] = ()
    actions: Sequence[Action] = ()
    faults: Sequence[str] = ()

    def __str__(self) -> str:
        return f"{SIGNS[self.kind]} {self.subject}{': ' if self.details else ''}{'; '.join(self.details)}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of a file, in its order."""

    steps: Sequence[Step] = field(default_factory=tuple)

    @property
    def faults(self) -> list[str]:
        """Why the file can't be applied; empty: it can."""
        return [fault for step in self.steps for fault in step.faults]

    @property
    def actions(self) -> list[Action]:
        """The calls to make, in a safe order."""
        return sorted((action for step in self.steps for action in step.actions), key=lambda action: action.phase)

    def counted(self) -> Mapping[str, int]:
        """How many things are new, changed and the same."""
        return {kind: sum(step.kind == kind for step in self.steps) for kind in SIGNS}


def step_of(
    subject: str, details: Iterable[str], actions: Iterable[Action], faults: Iterable[str] = (), *, is_new: bool = False
) -> Step:
    """A step whose kind follows from what it takes."""
    details, actions, faults = tuple(details), tuple(actions), tuple(faults)
    kind = "new" if is_new else "changed" if details or actions or faults else "same"
    return Step(subject, kind, details, actions, faults)
