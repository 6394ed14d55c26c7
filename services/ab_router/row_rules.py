"""How the rows of a model are checked and assigned: prepared once, and kept while versions and experiments hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from contender.contracts.ab_router import PredictionRow
from contender.contracts.experiments import ExperimentRevision
from contender.contracts.inference_service import ModelVersion
from contender.contracts.problems import FieldError
from contender.contracts.values import ClockName
from services.ab_router.catalog import Catalog, Model
from services.ab_router.domain.assignment import InForce
from services.ab_router.requests import FAULTS_SHOWN, RowSchema
from services.ab_router.settings import RouterSettings

_MODELS = 1_000
"""Models whose rules are remembered."""
_CLOCKS: tuple[ClockName, ...] = ("wall", "event")


@dataclass(frozen=True, slots=True)
class RowRules:
    """How the rows of one model are checked and assigned.

    Attributes:
        model: its versions.
        experiments: those in force whose versions are all known.
        schema: of the rows, whoever answers them: a refusal must not depend on the assignment.
        clock: the stricter one of the experiments' clocks; None without an experiment.
    """

    model: Model
    experiments: InForce
    schema: RowSchema
    clock: ClockName | None

    def faults(self, row: PredictionRow, now: float) -> list[FieldError]:
        """Why a row is refused, whichever variant it would get; empty where it is not."""
        faults = self.schema.faults(row, now, self.clock)
        if not row.unit and _is_context_sound(faults) and (refusing := self.experiments.refuses(row)):
            message = (
                f"is missing, and experiment {refusing} assigns by unit: send one, or let the champion answer such "
                'rows with unit_missing: "champion"'
            )
            faults.insert(0, FieldError("unit", message))
        return faults


def _is_context_sound(faults: Sequence[FieldError]) -> bool:
    """Whether targeting may look at a row's context: its rules take long on texts that are longer than any is taken."""
    return len(faults) < FAULTS_SHOWN and not any(fault.field.partition(".")[0] == "context" for fault in faults)


class ExperimentsInForce(Protocol):
    """Where the experiments come from."""

    def in_force(self, model: str) -> tuple[ExperimentRevision, ...]:
        """Those in force on a model, the one that started first first."""
        ...


class RulesByModel:
    """The rules of each model. They are made again when the catalog or the model's experiments have changed."""

    def __init__(self, catalog: Catalog, experiments: ExperimentsInForce, settings: RouterSettings) -> None:
        self._catalog = catalog
        self._experiments = experiments
        self._settings = settings
        self._rules: dict[str, tuple[int, tuple[ExperimentRevision, ...], RowRules]] = {}

    def of(self, model: Model) -> RowRules:
        """The rules of a model as the catalog has it."""
        in_force = self._experiments.in_force(model.name)
        serial, experiments, rules = self._rules.get(model.name, (-1, (), None))
        if rules is None or serial != self._catalog.serial or experiments != in_force:
            if len(self._rules) >= _MODELS:
                self._rules.clear()
            rules = self._new(model, in_force)
            self._rules[model.name] = (self._catalog.serial, in_force, rules)
        return rules

    def _new(self, model: Model, in_force: Sequence[ExperimentRevision]) -> RowRules:
        known = [experiment for experiment in in_force if _is_known(experiment, model)]
        settings = self._settings
        versions = list(_candidates(model, known).values())
        schema = RowSchema(versions, model.versions.values(), self._catalog, settings.text_limit, settings.key_limit)
        clocks = {experiment.clock for experiment in known}
        return RowRules(model, InForce(known), schema, next((clock for clock in _CLOCKS if clock in clocks), None))


def _is_known(experiment: ExperimentRevision, model: Model) -> bool:
    """Whether the catalog has read the versions that an experiment started with; until then it assigns nobody."""
    return all(variant.version in model.versions for variant in experiment.variants)


def _candidates(model: Model, experiments: Sequence[ExperimentRevision]) -> Mapping[str, ModelVersion]:
    """The versions that might answer, or score in shadow."""
    names = [variant.version for experiment in experiments for variant in experiment.variants]
    return {name: model.versions[name] for name in (model.champion.version, *names)}
