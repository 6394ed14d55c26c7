"""What people import and type: the client, feature definitions, the command line and the embedded stack."""

from contender.own_packages import import_own

import_own("shared")  # before what stands under that name where somebody works

from contender.answers import Refusal
from contender.client import Client, Experiment
from contender.errors import (
    ContenderError,
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
    "Client",
    "ContenderError",
    "Entity",
    "EventSource",
    "Experiment",
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
