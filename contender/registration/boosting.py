"""Boosted trees of LightGBM and XGBoost as ONNX's TreeEnsemble, from the libraries' own dumps of a model.

Needs the extra `boosting`. onnxmltools' converters write 32-bit thresholds, which puts rows behind a scaler, and
numbers beyond 24 bits, on the other side of a split.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
from skl2onnx import update_registered_converter
from skl2onnx.common.shape_calculator import (
    calculate_linear_classifier_output_shapes,
    calculate_linear_regressor_output_shapes,
)

from contender.errors import ExportError
from contender.registration.nodes import Nodes
from contender.registration.trees import LEAF, Tree, hand_over, rows_of, sums

_OPTIONS: dict[str, Any] = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
_SIGMOID, _SOFTMAX, _EXP, _AS_IT_IS = "sigmoid", "softmax", "exp", "as it is"
_LIGHTGBM = {
    "binary": _SIGMOID,
    "multiclass": _SOFTMAX,
    "poisson": _EXP,
    "gamma": _EXP,
    "tweedie": _EXP,
    **dict.fromkeys(["regression", "regression_l1", "huber", "fair", "quantile", "mape"], _AS_IT_IS),
}
_XGBOOST = {
    "binary:logistic": _SIGMOID,
    "reg:logistic": _SIGMOID,
    "multi:softprob": _SOFTMAX,
    "count:poisson": _EXP,
    "reg:gamma": _EXP,
    "reg:tweedie": _EXP,
    **dict.fromkeys(["reg:squarederror", "reg:absoluteerror", "reg:quantileerror", "reg:pseudohubererror"], _AS_IT_IS),
}


@cache
def register_converters(library: str) -> None:
    """Register our converters of a library's trees with skl2onnx, once a process.

    Raises:
        ImportError: the library is not installed.
    """
    if library == "lightgbm":
        from lightgbm import LGBMClassifier, LGBMRegressor  # noqa: PLC0415 - only whoever has fitted one needs it

        _register(LGBMClassifier, LGBMRegressor, _convert_lightgbm)
    else:
        from xgboost import XGBClassifier, XGBRegressor  # noqa: PLC0415 - as above

        _register(XGBClassifier, XGBRegressor, _convert_xgboost)


def _register(classifier: type, regressor: type, convert: Callable[[Any, Any, Any], None]) -> None:
    shapes = calculate_linear_classifier_output_shapes, calculate_linear_regressor_output_shapes
    update_registered_converter(classifier, f"Boosted{classifier.__name__}", shapes[0], convert, options=_OPTIONS)
    update_registered_converter(regressor, f"Boosted{regressor.__name__}", shapes[1], convert)


def _convert_lightgbm(scope: Any, operator: Any, container: Any) -> None:
    model, nodes = operator.raw_operator, Nodes(scope, container)
    written = model.booster_.dump_model(num_iteration=getattr(model, "best_iteration_", None) or -1)
    name, *settings = written["objective"].split()
    slope = next((float(setting.split(":")[1]) for setting in settings if setting.startswith("sigmoid:")), 1.0)
    if name not in _LIGHTGBM or written["average_output"] or "sqrt" in settings:
        raise ExportError(f"{type(model).__name__} has the objective {written['objective']!r} or averages its trees")
    width = written["num_tree_per_iteration"]
    trees = ((n % width, _lightgbm_tree(tree["tree_structure"])) for n, tree in enumerate(written["tree_info"]))
    raw = sums(nodes, rows_of(nodes, operator, as_32_bits=False), trees, width)
    if slope != 1.0:
        raw = nodes.add("Mul", raw, nodes.constant(slope))
    hand_over(nodes, operator, _linked(nodes, _LIGHTGBM[name], raw))


def _lightgbm_tree(root: Mapping[str, Any]) -> Tree:
    columns: list[tuple[int, float, int, int, bool, float]] = []

    def grow(node: Mapping[str, Any]) -> int:
        index = len(columns)
        if "leaf_value" in node:
            columns.append((0, 0.0, LEAF, LEAF, False, node["leaf_value"]))
            return index
        if node["decision_type"] != "<=" or node["missing_type"] == "Zero":
            raise ExportError("LightGBM treats a column as categories, or zeros as missing: encode the column before")
        columns.append((0, 0.0, 0, 0, False, 0.0))
        # Without a way for missing values LightGBM takes them for zero.
        left = node["default_left"] if node["missing_type"] == "NaN" else node["threshold"] >= 0
        children = grow(node["left_child"]), grow(node["right_child"])
        columns[index] = (node["split_feature"], node["threshold"], *children, bool(left), 0.0)
        return index

    grow(root)
    features, thresholds, left, right, missing, values = zip(*columns, strict=True)
    return Tree(
        np.array(features),
        np.array(thresholds, dtype=float),
        np.array(left),
        np.array(right),
        np.array(missing),
        np.array(values, dtype=float),
    )


def _convert_xgboost(scope: Any, operator: Any, container: Any) -> None:
    model, nodes = operator.raw_operator, Nodes(scope, container)
    learner = json.loads(bytes(model.get_booster().save_raw("json")))["learner"]
    name, booster = learner["objective"]["name"], learner["gradient_booster"]
    if name not in _XGBOOST or booster["name"] != "gbtree":
        raise ExportError(f"{type(model).__name__} has the objective {name!r} or the booster {booster['name']!r}")
    link = _XGBOOST[name]
    width = max(1, int(learner["learner_model_param"]["num_class"]))
    begin = np.array([float(score) for score in learner["learner_model_param"]["base_score"].strip("[]").split(",")])
    if link == _SIGMOID:
        begin = np.log(begin / (1 - begin))
    elif link == _EXP:
        begin = np.log(begin)
    trees = _xgboost_trees(booster["model"], getattr(model, "best_iteration", None), width)
    rows = rows_of(nodes, operator, as_32_bits=True)
    if model.missing is not None and not np.isnan(model.missing):
        missing = nodes.add("Equal", rows, nodes.constant(float(np.float32(model.missing))))
        rows = nodes.add("Where", missing, nodes.constant(float("nan")), rows)
    raw = sums(nodes, rows, trees, width)
    raw = nodes.add("Add", raw, nodes.constant(np.broadcast_to(begin, (1, width)).copy()))
    hand_over(nodes, operator, _linked(nodes, link, raw))


def _xgboost_trees(model: Mapping[str, Any], best: int | None, width: int) -> Iterator[tuple[int, Tree]]:
    bounds = model["iteration_indptr"]
    count = len(model["trees"]) if best is None else bounds[best + 1]
    for target, tree in zip(model["tree_info"][:count], model["trees"][:count], strict=True):
        if any(tree["split_type"]) or len(tree["base_weights"]) != len(tree["left_children"]):
            raise ExportError(
                "XGBoost treats a column as categories, or several targets at once: encode the column before"
            )
        conditions = np.array(tree["split_conditions"], dtype=np.float32)
        # XGBoost goes left for x < threshold, TreeEnsemble for x <= threshold: the next smaller number splits alike.
        below = np.nextafter(conditions, np.float32(-np.inf)).astype(np.float64)
        yield (
            target % width,
            Tree(
                np.array(tree["split_indices"]),
                below,
                np.array(tree["left_children"]),
                np.array(tree["right_children"]),
                np.array(tree["default_left"]),
                conditions.astype(np.float64),
            ),
        )


def _linked(nodes: Nodes, link: str, raw: str) -> str:
    if link == _SIGMOID:
        positive = nodes.add("Sigmoid", raw)
        return nodes.add("Concat", nodes.add("Sub", nodes.constant(1.0), positive), positive, axis=1)
    if link == _SOFTMAX:
        return nodes.add("Softmax", raw, axis=1)
    return nodes.add("Exp", raw) if link == _EXP else raw
