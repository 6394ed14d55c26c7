"""The values that calls and events carry."""

from typing import Literal

Scalar = bool | int | float | str | None
Outcome = bool | int | float | str
Score = float | list[float]
"""A number, or one probability per class; the task says which."""

Missing = Literal["excluded", "negative"]
Dtype = Literal["float", "integer", "string", "boolean"]

REQUEST = "request"
"""The `source` of a model's column whose value the caller sends; other columns have the feature that serves them."""
