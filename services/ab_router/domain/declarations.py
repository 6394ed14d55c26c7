"""What an experiment may declare: every wrong field is named at once."""

from collections.abc import Iterator, Mapping
from zoneinfo import ZoneInfo

from contender.contracts import limits
from contender.contracts.experiments import CHAMPION, NewExperiment
from contender.contracts.inference_service import ModelVersion
from contender.contracts.tasks import task_named
from services.ab_router.domain.allocation import TOLERANCE, adds_up, share_faults
from services.ab_router.domain.bounds import is_range, span, within
from services.ab_router.domain.formulas import formula_faults
from services.ab_router.domain.metric_faults import metric_faults
from services.ab_router.domain.placement_faults import placement_faults
from shared.errors import FieldError, shortened

_ALL = 1.0
_ZONE_CHARACTERS = 100
_EXPLORATION_WEIGHTS = (2, 10_000)
"""How many rows a row stands for whose label is seen by exploration."""


def declaration_faults(new: NewExperiment, versions: Mapping[str, ModelVersion]) -> list[FieldError]:
    """The faults of a declaration, given the model's versions by name; `champion` is the name of one, too.

    Of too many variants none is looked at.
    """
    own = [*_range_faults(new), *_design_faults(new), *_label_faults(new)]
    if len(new.variants) > limits.VARIANTS[1]:
        return own
    return [
        *own,
        *_variant_faults(new, versions),
        *share_faults(
            {f"variants[{at}].weight": variant.weight for at, variant in enumerate(new.variants)}, new.coverage
        ),
        *placement_faults(new),
        *_task_faults(new, versions),
    ]


def _range_faults(new: NewExperiment) -> list[FieldError]:
    names = [variant.name for variant in new.variants]
    checks = [
        ("name", limits.NAME.fullmatch(new.name) is None, f"must be {limits.NAME_WORDS}"),
        (
            "variants",
            not within(len(names), limits.VARIANTS),
            f"has {len(names)} entries; expected {span(limits.VARIANTS)}",
        ),
        ("variants", len(set(names)) < len(names), "names a variant twice"),
        ("champion", new.champion is not None and new.champion not in names, "is not the name of a variant"),
        ("window_s", not within(new.window_s, limits.WINDOWS_S), "must be from one second to ten years"),
        ("alpha", not within(new.alpha, limits.ALPHAS), f"must be {span(limits.ALPHAS)}"),
        ("tuning_n", not within(new.tuning_n, limits.TUNING_ROWS), f"must be {span(limits.TUNING_ROWS)} rows"),
        ("coverage", not within(new.coverage, limits.SHARES), f"must be {span(limits.SHARES)}"),
        ("seed", len(new.seed) > limits.SEED_CHARACTERS, f"is longer than {limits.SEED_CHARACTERS} characters"),
    ]
    return [FieldError(field, message) for field, is_wrong, message in checks if is_wrong]


def _design_faults(new: NewExperiment) -> list[FieldError]:
    horizon = new.horizon_rows
    has_reason = bool(new.cycle_reason.strip())
    checks = [
        ("margin", not within(new.margin, limits.MARGINS), f"must be {span(limits.MARGINS)}"),
        (
            "margin",
            new.hypothesis != "superiority" and new.margin == 0,
            f"must be above 0 for {new.hypothesis}: a difference, in the metric's own unit, that does no harm",
        ),
        ("early_s", not within(new.early_s, limits.EARLY_S), f"must be {span(limits.EARLY_S)}"),
        ("time_zone", not _is_time_zone(new.time_zone), _zone_fault(new.time_zone)),
        ("cycle_days", not within(new.cycle_days, limits.CYCLE_DAYS), f"must be {span(limits.CYCLE_DAYS)}"),
        (
            "cycle_reason",
            new.cycle_days == 0 and not has_reason,
            "must say why days do not matter, since cycle_days is 0: a verdict then rests on rows alone",
        ),
        (
            "cycle_reason",
            new.cycle_days != 0 and has_reason,
            "is for cycle_days 0 alone: leave it out, or declare cycle_days 0",
        ),
        (
            "cycle_reason",
            len(new.cycle_reason) > limits.REASON_CHARACTERS,
            f"is longer than {limits.REASON_CHARACTERS} characters",
        ),
        (
            "horizon_rows",
            horizon is not None and not within(horizon, limits.HORIZON_ROWS),
            f"must be {span(limits.HORIZON_ROWS)} rows",
        ),
        ("log_loss_clip", not within(new.log_loss_clip, limits.CLIPS), f"must be {span(limits.CLIPS)}"),
        (
            "label_range",
            new.label_range is not None and not is_range(new.label_range),
            "must be two finite numbers, the lower one first",
        ),
        (
            "error_limit",
            new.error_limit is not None and not within(new.error_limit, limits.ERROR_LIMITS),
            f"must be {span(limits.ERROR_LIMITS)}",
        ),
    ]
    return [FieldError(field, message) for field, is_wrong, message in checks if is_wrong]


def _label_faults(new: NewExperiment) -> Iterator[FieldError]:
    """Faults of what is declared of outcomes and of the labels that are seen."""
    if not within(new.shadow_share, limits.SHADOW_SHARES):
        yield FieldError("shadow_share", f"must be {span(limits.SHADOW_SHARES)}")
    elif new.shadow_share != _ALL and new.outcome != "independent of the answer" and not new.shadow:
        yield FieldError(
            "shadow_share",
            'is for outcomes that no answer changes: declare outcome "independent of the answer", or leave it out',
        )
    share = new.exploration_share
    if share != 0 and not _is_unit_fraction(share):
        message = f"must be 0, or 1 over a whole number {span(_EXPLORATION_WEIGHTS)}, such as 0.01"
        yield FieldError("exploration_share", message)
    elif share == 0 and new.labels_seen_if:
        yield FieldError(
            "exploration_share",
            "must be above 0, such as 0.01, since labels_seen_if is declared: nothing could be said of the other rows",
        )
    elif share != 0 and not new.labels_seen_if:
        yield FieldError(
            "exploration_share", "is for labels that only some answers let see: declare labels_seen_if, or leave it out"
        )


def _variant_faults(new: NewExperiment, versions: Mapping[str, ModelVersion]) -> Iterator[FieldError]:
    total = sum(variant.weight for variant in new.variants)
    if not adds_up([total]):
        yield FieldError("variants", f"has weights that add up to {total:g}; they must add up to 1")
    champion = new.champion or new.variants[0].name if new.variants else ""
    for index, variant in enumerate(new.variants):
        path = f"variants[{index}]"
        if limits.NAME.fullmatch(variant.name) is None:
            yield FieldError(f"{path}.name", f"must be {limits.NAME_WORDS}")
        if new.shadow and variant.weight != float(variant.name == champion):
            message = "must be 1 for the champion and 0 for the others, which score in shadow alone"
            yield FieldError(f"{path}.weight", message)
        elif not new.shadow and not within(variant.weight, limits.SHARES):
            yield FieldError(f"{path}.weight", f"must be {span(limits.SHARES)}")
        if variant.alias not in ("", CHAMPION):
            yield FieldError(f"{path}.alias", f"must be {CHAMPION}, or left out")
        if variant.version not in versions:
            yield FieldError(f"{path}.version", f"is not a version of model {new.model}: give one in full")


def _task_faults(new: NewExperiment, versions: Mapping[str, ModelVersion]) -> list[FieldError]:
    """Whatever does not suit the task of the versions."""
    known = [versions[variant.version] for variant in new.variants if variant.version in versions]
    if not known:
        return []
    task = task_named(known[0].task)
    faults: list[FieldError] = []
    if len({(version.task, tuple(version.classes)) for version in known}) > 1:
        faults.append(FieldError("variants", "mixes versions of different tasks or classes"))
    else:
        faults += metric_faults(new, task)
        faults += formula_faults(new, known)
        if new.missing == "negative" and task.negative_outcome is None:
            faults.append(
                FieldError("missing", f"can't be negative: a {task.name} model has no outcome that is the negative one")
            )
        if new.label_range is not None and task.has_classes:
            faults.append(
                FieldError("label_range", f"is for regressions: the outcomes of a {task.name} model are classes")
            )
        if new.error_limit is not None and task.has_classes:
            faults.append(FieldError("error_limit", f"is for regressions: a {task.name} model has no such errors"))
    if new.fallback_value is not None and (message := task.fallback_fault(new.fallback_value)):
        faults.append(FieldError("fallback_value", message))
    return faults


def _is_time_zone(name: str) -> bool:
    if not 0 < len(name) <= _ZONE_CHARACTERS:
        return False
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # malformed, a folder of zones, unknown
        return False
    return True


def _zone_fault(name: str) -> str:
    return f"is {shortened(name, _ZONE_CHARACTERS)!r}; expected a name of the IANA list, such as Europe/Berlin"


def _is_unit_fraction(share: float) -> bool:
    """Whether a share is 1 over a whole number, which is the weight of an explored row."""
    low, high = _EXPLORATION_WEIGHTS
    if not (1 - TOLERANCE) / high <= share <= 1 / low:
        return False
    return abs(share * round(1 / share) - 1) <= TOLERANCE
