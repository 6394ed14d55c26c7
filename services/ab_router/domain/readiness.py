"""What the last day's traffic says of an experiment before its start: findings, some of which refuse it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice

from contender.contracts.experiments import ExperimentRevision, Finding
from contender.contracts.inference_service import InputColumn, ModelVersion
from contender.contracts.values import REQUEST
from services.ab_router.domain import traffic as keys
from services.ab_router.domain.traffic import FURTHER, DayOfTraffic, kept_text

ROWS_TO_BLOCK = 20
"""Rows from which on a finding refuses a start: shares of fewer rows say little."""
SENT_SHARE = 0.99
"""Least share of rows with a column that is required."""
UNSEEN_SHARE = 0.01
"""Largest share of rows with a category that a version does not know."""
STALE_SHARE = 0.05
"""Largest share of a feature's values that are not found, or older than their view allows."""
MISSING_SHARE = 0.5
"""Share of values that are not found from which on a start is refused, though the version can do without them.

New entities have no values yet, which a version allows for; where most rows have none, they are likely looked up by
another key than they are kept by.
"""
LATENCY_SHARE = 0.95
_CLOSE = 0.6
"""How alike a name must be to one that is missing, by difflib, to be named as its likely successor."""
_STALE = ("NOT_FOUND", "OUTSIDE_MAX_AGE")
_SHOWN = 5
_INPUTS, _ENTITIES = "inputs", "entities"


@dataclass(frozen=True, slots=True)
class VariantNeeds:
    """What rows must bring for a variant: its version's columns, and the inputs of the views of its features."""

    variant: str
    version: ModelVersion
    join_keys: Sequence[str] = ()
    computed_from: Sequence[str] = ()

    @property
    def request(self) -> list[InputColumn]:
        """The columns that callers send."""
        return [column for column in self.version.inputs if column.source == REQUEST]

    @property
    def features(self) -> list[str]:
        """The features that it is served, each as `view:feature`."""
        return list(dict.fromkeys(column.source for column in self.version.inputs if column.source != REQUEST))

    def requires(self, reference: str) -> bool:
        """Whether it gives no score without a feature."""
        columns = [column for column in self.version.inputs if column.source == reference]
        return any(column.required and column.default is None for column in columns)

    @property
    def names(self) -> set[str]:
        """The columns of the request that it takes, for itself or for its features."""
        return {*(column.name for column in self.request), *self.computed_from}


def traffic_findings(
    experiment: ExperimentRevision,
    needs: Sequence[VariantNeeds],
    known: set[str],
    day: DayOfTraffic,
    challenger_deadline_s: float,
) -> list[Finding]:
    """What of the last day's traffic does not suit an experiment, the worst first.

    Args:
        experiment: about to start.
        needs: of each variant.
        known: the columns that any version of the model takes from the request.
        day: the traffic.
        challenger_deadline_s: longest that a row waits for a challenger.
    """
    if not day.rows:
        message = f"has no row of model {experiment.model} in the last day, so nothing could be compared with it"
        return [Finding("traffic", message, blocks=False)]
    if not day.accepted:
        faults = _listed(day.by_name(keys.FAULT))
        message = f"was refused in all {day.rows:,} rows of the last day, for {faults}: nobody would be answered"
        return [Finding("traffic", message, blocks=day.rows >= ROWS_TO_BLOCK)]
    findings = [
        *_columns(needs, known, day),
        *_categories(needs, day),
        *_features(needs, day, is_shadow=experiment.shadow),
        *([] if experiment.shadow else _latencies(experiment, needs, day, challenger_deadline_s)),
    ]
    return sorted(findings, key=lambda finding: not finding.blocks)


@dataclass(frozen=True, slots=True)
class _Requirement:
    """A column or key of entities that variants need, and in how many rows it was; `field` is such as `inputs.plan`."""

    group: str
    name: str
    variants: Sequence[VariantNeeds]
    rows: int
    is_required: bool

    @property
    def field(self) -> str:
        return f"{self.group}.{self.name}"


def _requirements(needs: Sequence[VariantNeeds], day: DayOfTraffic) -> Iterator[_Requirement]:
    sent, nulls, entities = (day.by_name(kind) for kind in (keys.SENT, keys.NULL, keys.ENTITY))
    valued = {name: rows - nulls.get(name, 0) for name, rows in sent.items()}
    further = entities.get(FURTHER, 0)  # keys that were not told apart: any of them may be the one
    wishes: dict[tuple[str, str], list[tuple[bool, int, VariantNeeds]]] = {}
    for need in needs:
        # A column that features are computed from must be there; null is a value that they decide about.
        wanted = [(_ENTITIES, name, entities.get(name, 0) + further, True) for name in need.join_keys]
        wanted += [(_INPUTS, name, sent.get(name, 0), True) for name in need.computed_from]
        for column in need.request:
            is_required = column.required and column.default is None
            wanted.append((_INPUTS, column.name, valued.get(column.name, 0), is_required))
        for group, name, rows, is_required in wanted:
            wishes.setdefault((group, name), []).append((is_required, rows, need))
    for (group, name), every in wishes.items():
        strict = [wish for wish in every if wish[0]]
        concerned = strict or every  # variants that can do without it are not concerned where others can't
        variants = list({need.variant: need for _, _, need in concerned}.values())
        yield _Requirement(group, name, variants, min(rows for _, rows, _ in concerned), bool(strict))


def _columns(needs: Sequence[VariantNeeds], known: set[str], day: DayOfTraffic) -> Iterator[Finding]:
    """Columns and keys that some variant needs and that rows lack.

    One that callers have begun to send refuses nothing, once an hour's rows have it.
    """
    latest = day.latest(ROWS_TO_BLOCK)
    lately = {wish.field: wish.rows for wish in _requirements(needs, latest)}
    for wish in _requirements(needs, day):
        if wish.rows >= SENT_SHARE * day.accepted or (wish.rows and not wish.is_required):
            continue
        who = _variants(wish.variants)
        lacking = "none" if not wish.rows else f"only {_percent(wish.rows / day.accepted)}"
        message = f"is needed by {who}, and {lacking} of the {day.accepted:,} rows of the last day had it"
        if not wish.rows and (successor := _successor(wish, known, day)):
            message += f" (callers send {successor}, which {who} does not take: has it been renamed?)"
        is_sent_now = latest.accepted > 0 and lately[wish.field] >= SENT_SHARE * latest.accepted
        if is_sent_now:
            share = _percent(lately[wish.field] / latest.accepted)
            message += f", and {share} of the {latest.accepted:,} of the latest hour"
        message += ": the others would be refused" if wish.is_required else ": its default, or null, stands in for it"
        is_bad = wish.is_required and not is_sent_now and day.accepted >= ROWS_TO_BLOCK
        yield Finding(wish.field, message, blocks=is_bad)


def _successor(wish: _Requirement, known: set[str], day: DayOfTraffic) -> str:
    """The column that callers likely send in its place, by its name: its variants do not take it. Empty: none."""
    if wish.group == _ENTITIES:
        own = {key for need in wish.variants for key in need.join_keys}
        candidates = list(day.by_name(keys.ENTITY))
    else:
        own = {column for need in wish.variants for column in need.names}
        faults = [field.removeprefix(f"{_INPUTS}.") for field in day.by_name(keys.FAULT)]
        candidates = [*day.by_name(keys.SENT), *(field for field in faults if field not in known)]
    close = get_close_matches(wish.name, [name for name in candidates if name not in own], n=1, cutoff=_CLOSE)
    return close[0] if close else ""


def _categories(needs: Sequence[VariantNeeds], day: DayOfTraffic) -> Iterator[Finding]:
    """Values that a variant's encoders do not know."""
    counted = day.by_pair(keys.VALUE)
    unseen: dict[tuple[str, tuple[tuple[str, int], ...]], list[VariantNeeds]] = {}
    for need in needs:
        for column in need.request:
            categories = need.version.categories.get(column.name)
            if categories is None:
                continue
            seen = {*categories, *map(kept_text, categories)}
            others = tuple(item for item in counted.get(column.name, {}).items() if item[0] not in seen)
            if sum(number for _, number in others) > UNSEEN_SHARE * day.accepted:
                unseen.setdefault((column.name, others), []).append(need)
    for (name, others), variants in unseen.items():
        share = _percent(sum(number for _, number in others) / day.accepted)
        message = (
            f"has values in {share} of the {day.accepted:,} rows of the last day that {_variants(variants)} did not "
            f"see in training: {_listed(dict(others))}"
        )
        yield Finding(f"{_INPUTS}.{name}", message, blocks=day.accepted >= ROWS_TO_BLOCK)


def _features(needs: Sequence[VariantNeeds], day: DayOfTraffic, *, is_shadow: bool) -> Iterator[Finding]:
    """Features that are too often not there, and those that no row was served yet."""
    served = day.by_pair(keys.FEATURE)
    by_feature: dict[str, list[VariantNeeds]] = {}
    for need in needs:
        for reference in need.features:
            by_feature.setdefault(reference, []).append(need)
    for reference, variants in by_feature.items():
        statuses = served.get(reference, {})
        values = sum(statuses.values())
        if values and sum(statuses.get(status, 0) for status in _STALE) > STALE_SHARE * values:
            missing, old = (statuses.get(status, 0) / values for status in _STALE)
            is_bad = old > STALE_SHARE or missing > MISSING_SHARE or any(need.requires(reference) for need in variants)
            message = (
                f"is needed by {_variants(variants)}; of {values:,} values of the last day {_percent(missing)} were "
                f"not found and {_percent(old)} were older than their view allows"
            )
            yield Finding(f"features.{reference}", message, blocks=is_bad and values >= ROWS_TO_BLOCK)
    for need in needs:
        unserved = [reference for reference in need.features if not sum(served.get(reference, {}).values())]
        if unserved and not is_shadow:
            message = (
                f"{', '.join(unserved[:_SHOWN])}{' and others' if len(unserved) > _SHOWN else ''} of "
                f"{_variants([need])} were served to no row of the last day, so nothing is known of them: an "
                "experiment with `shadow: true` shows how they do before anybody gets an answer by them"
            )
            yield Finding("features", message, blocks=False)


def _latencies(
    experiment: ExperimentRevision, needs: Sequence[VariantNeeds], day: DayOfTraffic, deadline_s: float
) -> Iterator[Finding]:
    """Challengers that were too slow in shadow."""
    for need in needs:
        latency_s, rows = day.latency_s(need.version.version, LATENCY_SHARE)
        if need.variant != experiment.champion and rows >= ROWS_TO_BLOCK and latency_s > deadline_s:
            message = (
                f"takes too long: one in twenty of {rows:,} rows in shadow took about {latency_s:.2g} s or more, and a "
                f"challenger has {deadline_s:g} s (CONTENDER_CHALLENGER_DEADLINE_S) before the champion answers for it"
            )
            yield Finding(f"variants.{need.variant}", message, blocks=True)


def _variants(needs: Sequence[VariantNeeds]) -> str:
    names = [f"{need.variant} ({need.version.version[:12]})" for need in needs]
    return f"variant{'s' if len(names) > 1 else ''} {' and '.join(names)}"


def _listed(counts: Mapping[str, int]) -> str:
    """The most frequent names with their counts."""
    shown = [f"{name} ({number:,})" for name, number in islice(counts.items(), _SHOWN)]
    return ", ".join([*shown, "others"] if len(counts) > _SHOWN else shown)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
