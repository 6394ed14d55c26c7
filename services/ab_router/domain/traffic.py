"""Counts of what callers sent: their keys, and a day of them."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

CountKey = tuple[str, ...]
"""A kind and the names that it counts, such as `("value", "carrier", "UA")`; without the last name: all others."""
Counts = Mapping[CountKey, int]

ROWS: CountKey = ("rows",)
REFUSED: CountKey = ("refused",)
SENT = "sent"
"""Rows with a column of the request, null or not, by column."""
NULL = "null"
"""Rows with null in a column of the request, by column."""
ENTITY = "entity"
"""Rows with a key among their entities, by key."""
VALUE = "value"
"""Rows with a value in a column whose categories a version knows, by column and value."""
FAULT = "fault"
"""Refused rows, by the field that was refused."""
FEATURE = "feature"
"""Values of features that rows were served, by `view:feature` and status."""
FURTHER = "…"
"""The name of what is counted together, beyond the limits."""
SHADOW = "shadow"
"""Rows scored in shadow, by version and step of latency."""

HOUR_S = 3600
DAY_HOURS = 24
TEXT_LIMIT = 40
"""Longest name or value that is kept as it is; of longer ones the beginning and a hash are."""
_STEPS_PER_DOUBLING = 4
_LAST_STEP = 68
"""That of 131 seconds: no row waits as long."""


def latency_step(seconds: float) -> int:
    """The step of a latency: step `n` ends at 2 ** (n / 4) milliseconds, each 19 % above the one before."""
    return min(max(math.ceil(_STEPS_PER_DOUBLING * math.log2(max(seconds, 1e-6) * 1e3)), 0), _LAST_STEP)


def kept_text(text: str) -> str:
    """A name or value as it is kept: nothing long, since it may hold what is nobody's business."""
    content = text.encode(errors="replace")
    if len(text) <= TEXT_LIMIT:
        return content.decode()
    return f"{text[: TEXT_LIMIT // 2].encode(errors='replace').decode()}…{hashlib.sha256(content).hexdigest()[:12]}"


def hours_of_day(now: float) -> range:
    """The hours of the last day, the present one included, each by its number since the Unix epoch.

    The first began less than 24 hours ago, so that nothing older than a day counts.
    """
    present = int(now // HOUR_S)
    return range(present - DAY_HOURS + 1, present + 1)


@dataclass(frozen=True)
class DayOfTraffic:
    """The counts of a model in the last day, by hour. `since` and `until` are seconds since the Unix epoch."""

    since: float
    until: float
    hours: Mapping[int, Counts]

    @cached_property
    def _by_kind(self) -> dict[str, Counter[CountKey]]:
        kinds: dict[str, Counter[CountKey]] = defaultdict(Counter)
        for counts in self.hours.values():
            for (kind, *names), number in counts.items():
                kinds[kind][tuple(names)] += number
        return kinds

    def by_name(self, kind: str) -> dict[str, int]:
        """The counts of a kind with one name, most first; all others have the name `…`."""
        counts = self._by_kind.get(kind, Counter())
        return {(names[0] if names else FURTHER): number for names, number in counts.most_common()}

    def by_pair(self, kind: str) -> dict[str, dict[str, int]]:
        """The counts of a kind with two names, by the first one, then by the second, most first."""
        pairs: dict[str, dict[str, int]] = {}
        for names, number in self._by_kind.get(kind, Counter()).most_common():
            pairs.setdefault(names[0], {})[names[1] if len(names) > 1 else FURTHER] = number
        return pairs

    @property
    def rows(self) -> int:
        """All rows that came."""
        return sum(counts.get(ROWS, 0) for counts in self.hours.values())

    @property
    def refused(self) -> int:
        """Rows that were refused."""
        return sum(counts.get(REFUSED, 0) for counts in self.hours.values())

    @property
    def accepted(self) -> int:
        """Rows that were not refused. All other counts but those of faults are of them."""
        return self.rows - self.refused

    def latest(self, rows: int) -> "DayOfTraffic":
        """The latest hour with so many accepted rows; empty where no hour has them."""
        hours = (hour for hour in sorted(self.hours, reverse=True) if self._of(hour).accepted >= rows)
        return next(map(self._of, hours), DayOfTraffic(self.until, self.until, {}))

    def _of(self, hour: int) -> "DayOfTraffic":
        return DayOfTraffic(float(hour * HOUR_S), self.until, {hour: self.hours[hour]})

    @property
    def accepted_per_day(self) -> float:
        """Accepted rows in 24 hours, at the pace of this day."""
        return self.accepted * DAY_HOURS * HOUR_S / max(self.until - self.since, 1.0)

    def latency_s(self, version: str, share: float) -> tuple[float, int]:
        """The seconds within which a share of a version's rows were scored in shadow, and the number of rows."""
        steps = {int(step): number for step, number in self.by_pair(SHADOW).get(version, {}).items()}
        rows = sum(steps.values())
        return quantile_s(steps, share), rows


def quantile_s(steps: Mapping[int, int], share: float) -> float:
    """The seconds within which a share of rows falls, to a tenth: the middle of a step. 0 where there are none."""
    rows, seen = sum(steps.values()), 0
    for step in sorted(steps):
        seen += steps[step]
        if seen >= share * rows:
            return float(2 ** ((step - 0.5) / _STEPS_PER_DOUBLING) / 1e3)
    return 0.0
