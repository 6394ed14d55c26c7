"""What people import: the client and its errors, and feature definitions. Parts load when they are first used."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contender.application_calls import Refusal
    from contender.async_client import AsyncClient
    from contender.client import Client, Experiment
    from contender.errors import (
        ContenderError,
        ExperimentWarning,
        ExportError,
        ParityError,
        RefusedError,
        RegistrationWarning,
        UnreachableError,
    )
    from contender.features import (
        Entity,
        EventSource,
        FeatureService,
        FeatureView,
        column,
        count,
        distinct_count,
        first,
        last,
        last_n,
        max,  # noqa: A004 - as polars and SQL call it
        mean,
        min,  # noqa: A004
        on_demand,
        quantile,
        ratio,
        std,
        sum,  # noqa: A004
    )

__all__ = [
    "AsyncClient",
    "Client",
    "ContenderError",
    "Entity",
    "EventSource",
    "Experiment",
    "ExperimentWarning",
    "ExportError",
    "FeatureService",
    "FeatureView",
    "ParityError",
    "Refusal",
    "RefusedError",
    "RegistrationWarning",
    "UnreachableError",
    "column",
    "count",
    "distinct_count",
    "first",
    "last",
    "last_n",
    "max",
    "mean",
    "min",
    "on_demand",
    "quantile",
    "ratio",
    "std",
    "sum",
]

_HOMES = {
    "contender.application_calls": ("Refusal",),
    "contender.async_client": ("AsyncClient",),
    "contender.client": ("Client", "Experiment"),
    "contender.errors": tuple(name for name in __all__ if name.endswith(("Error", "Warning"))),
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load the module that has the name, and no other."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = next((module for module, names in _HOMES.items() if name in names), "contender.features")
        return globals().setdefault(name, getattr(import_module(home), name))
