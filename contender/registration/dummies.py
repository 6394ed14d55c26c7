"""Dummies of scikit-learn as linear models that answer the same."""

from typing import Any

import numpy as np
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression

from contender.errors import ExportError

DUMMIES = (DummyClassifier, DummyRegressor)
_SURE = 1e3
"""Logits of a class that a dummy always or never predicts."""


def constant_model(dummy: Any) -> Any:
    """A linear model that answers as a dummy does, whatever its columns."""
    width = getattr(dummy, "n_features_in_", 1)
    if isinstance(dummy, DummyRegressor):
        model: Any = LinearRegression()
        model.coef_, model.intercept_ = np.zeros(width), np.ravel(dummy.constant_)[:1].astype(float)
    else:
        if dummy.strategy in ("stratified", "uniform"):
            raise ExportError(
                f"DummyClassifier answers at random (strategy={dummy.strategy!r}): fit it with strategy='prior'"
            )
        shares = dummy.predict_proba(np.zeros((1, width)))[0]
        logits = np.where(shares > 0, np.log(np.maximum(shares, 1e-300)), -_SURE)
        if len(shares) == 2:  # noqa: PLR2004 - a binary model has one row of coefficients
            logits = logits[1:] - logits[:1]
        model = LogisticRegression()
        model.classes_, model.coef_, model.intercept_ = dummy.classes_, np.zeros((len(logits), width)), logits
        model.n_iter_ = np.array([0])
    model.n_features_in_ = width
    return model
