"""Trees of scikit-learn as ONNX's TreeEnsemble in 64-bit floats, which splits and adds up as scikit-learn does.

skl2onnx's own converters write 32-bit thresholds and shares: numbers beyond 24 bits fall on the other side of a split,
and ties between classes are broken by rounding.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

from contender.errors import ExportError
from contender.registration.nodes import Converters, Nodes

ML_OPSET = 5
"""Of the domain ai.onnx.ml: the first that has TreeEnsemble."""
_DECLARED = 3
"""What skl2onnx lets a node ask for; the file is raised to ML_OPSET afterwards."""
LEAF = -1
_SUM = 1
_LEQ = 0


@dataclass(frozen=True)
class Tree:
    """One tree: arrays of shape (nodes,), a child of -1 marks a leaf; `values` has shape (nodes,)."""

    features: NDArray[Any]
    thresholds: NDArray[np.float64]
    left: NDArray[Any]
    right: NDArray[Any]
    missing_left: NDArray[Any]
    values: NDArray[np.float64]


def tree_attributes(trees: Iterable[tuple[int, Tree]], targets: int) -> dict[str, Any]:
    """Attributes of a TreeEnsemble node that adds up trees, each of them given with its target."""
    nodes: list[NDArray[Any]] = []
    leaves: list[NDArray[Any]] = []
    roots: list[int] = []
    node_count = leaf_count = 0
    for target, tree in trees:
        whole = _grown(tree)
        is_leaf = whole.left == LEAF
        number = np.where(is_leaf, np.cumsum(is_leaf) - 1 + leaf_count, np.cumsum(~is_leaf) - 1 + node_count)
        left, right = whole.left[~is_leaf], whole.right[~is_leaf]
        nodes.append(
            np.column_stack(
                [
                    whole.features[~is_leaf],
                    whole.thresholds[~is_leaf],
                    whole.missing_left[~is_leaf],
                    number[left],
                    is_leaf[left],
                    number[right],
                    is_leaf[right],
                ]
            ).astype(np.float64)
        )
        leaves.append(np.column_stack([np.full(is_leaf.sum(), target), whole.values[is_leaf]]))
        roots.append(node_count)
        node_count += int((~is_leaf).sum())
        leaf_count += int(is_leaf.sum())
    inner, outer = np.concatenate(nodes), np.concatenate(leaves)
    features, thresholds, missing, true, true_leaf, false, false_leaf = inner.T
    return {
        "n_targets": targets,
        "aggregate_function": _SUM,
        "post_transform": 0,
        "tree_roots": roots,
        "nodes_featureids": _ints(features),
        "nodes_modes": numpy_helper.from_array(np.full(len(inner), _LEQ, dtype=np.uint8), "modes"),
        "nodes_splits": numpy_helper.from_array(thresholds.copy(), "splits"),
        "nodes_missing_value_tracks_true": _ints(missing),
        "nodes_truenodeids": _ints(true),
        "nodes_trueleafs": _ints(true_leaf),
        "nodes_falsenodeids": _ints(false),
        "nodes_falseleafs": _ints(false_leaf),
        "leaf_targetids": _ints(outer[:, 0]),
        "leaf_weights": numpy_helper.from_array(outer[:, 1].copy(), "weights"),
    }


def _ints(values: NDArray[np.float64]) -> list[int]:
    return [int(value) for value in values]


def _grown(tree: Tree) -> Tree:
    """The tree, of at least one split: TreeEnsemble has no tree that is a leaf."""
    if len(tree.left) > 1:
        return tree
    return Tree(
        np.array([0, 0, 0]),
        np.zeros(3),
        np.array([1, LEAF, LEAF]),
        np.array([2, LEAF, LEAF]),
        np.zeros(3, dtype=int),
        np.repeat(tree.values, 3),
    )


def _sklearn_tree(tree: Any, values: NDArray[np.float64]) -> Tree:
    missing = np.asarray(tree.missing_go_to_left)
    return Tree(tree.feature, tree.threshold, tree.children_left, tree.children_right, missing, values)


def _histogram_tree(predictor: Any) -> Tree:
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(bool)
    left = np.where(leaf, LEAF, nodes["left"].astype(np.int64))
    right = np.where(leaf, LEAF, nodes["right"].astype(np.int64))
    thresholds = np.minimum(nodes["num_threshold"], np.finfo(np.float64).max)  # infinity: only missing values go right
    return Tree(nodes["feature_idx"], thresholds, left, right, nodes["missing_go_to_left"], nodes["value"])


# Converters, as skl2onnx calls them


def _forest(scope: Any, operator: Any, container: Any) -> None:
    model, nodes = operator.raw_operator, Nodes(scope, container)
    members = getattr(model, "estimators_", [model])
    classes = getattr(model, "classes_", None)
    width = 1 if classes is None else len(classes)
    trees = (
        (target, _sklearn_tree(member.tree_, member.tree_.value[:, 0, target]))
        for member in members
        for target in range(width)
    )
    total = sums(nodes, rows_of(nodes, operator, as_32_bits=True), trees, width)
    hand_over(nodes, operator, nodes.add("Div", total, nodes.constant(float(len(members)))))


def _gradient_boosting(scope: Any, operator: Any, container: Any) -> None:
    model, nodes = operator.raw_operator, Nodes(scope, container)
    width = model.estimators_.shape[1]
    probe = np.zeros((1, model.n_features_in_))
    if model.init_ != "zero" and not type(model.init_).__name__.startswith("Dummy"):
        raise ExportError(f"{type(model).__name__} begins with another model (init=): leave init out")
    begin = model._raw_predict_init(probe)[0]  # noqa: SLF001 - nothing public says what boosting begins with
    trees = (
        (target, _sklearn_tree(member.tree_, model.learning_rate * member.tree_.value[:, 0, 0]))
        for stage in model.estimators_
        for target, member in enumerate(stage)
    )
    total = sums(nodes, rows_of(nodes, operator, as_32_bits=True), trees, width)
    raw = nodes.add("Add", total, nodes.constant(begin.astype(np.float64)))
    hand_over(nodes, operator, _linked(nodes, model, raw))


def _histogram_boosting(scope: Any, operator: Any, container: Any) -> None:
    model, nodes = operator.raw_operator, Nodes(scope, container)
    stages = model._predictors  # noqa: SLF001 - nothing public holds the trees
    trees = ((target, _histogram_tree(tree)) for stage in stages for target, tree in enumerate(stage))
    total = sums(nodes, rows_of(nodes, operator, as_32_bits=False), trees, model.n_trees_per_iteration_)
    begin = np.asarray(model._baseline_prediction, dtype=np.float64).reshape(1, -1)  # noqa: SLF001
    hand_over(nodes, operator, _linked(nodes, model, nodes.add("Add", total, nodes.constant(begin))))


def _linked(nodes: Nodes, model: Any, raw: str) -> str:
    """Probabilities or values of what boosting adds up."""
    loss = type(model._loss).__name__  # noqa: SLF001 - the link follows from it
    if loss in ("HalfBinomialLoss", "ExponentialLoss"):
        steeper = raw if loss == "HalfBinomialLoss" else nodes.add("Mul", raw, nodes.constant(2.0))
        positive = nodes.add("Sigmoid", steeper)
        return nodes.add("Concat", nodes.add("Sub", nodes.constant(1.0), positive), positive, axis=1)
    if loss == "HalfMultinomialLoss":
        return nodes.add("Softmax", raw, axis=1)
    return nodes.add("Exp", raw) if loss in ("HalfPoissonLoss", "HalfGammaLoss") else raw


def rows_of(nodes: Nodes, operator: Any, *, as_32_bits: bool) -> str:
    """The step's rows in 64 bits; scikit-learn's own trees round them to 32 bits before they compare."""
    rows: str = operator.inputs[0].full_name
    if as_32_bits and not isinstance(operator.inputs[0].type, FloatTensorType):
        rows = nodes.add("Cast", rows, to=TensorProto.FLOAT)
    if as_32_bits or not isinstance(operator.inputs[0].type, DoubleTensorType):
        rows = nodes.add("Cast", rows, to=TensorProto.DOUBLE)
    return rows


def sums(nodes: Nodes, rows: str, trees: Iterable[tuple[int, Tree]], targets: int) -> str:
    """The trees' sums, shape (rows, targets)."""
    attributes = tree_attributes(trees, targets)
    return nodes.add("TreeEnsemble", rows, op_domain="ai.onnx.ml", op_version=_DECLARED, **attributes)


def hand_over(nodes: Nodes, operator: Any, scores: str) -> None:
    """Hand the scores on, in the type that the next step expects, with labels before them for a classifier."""
    if len(operator.outputs) > 1:
        nodes.label(scores, operator.raw_operator.classes_, operator.outputs[0].full_name)
    nodes.hand_on(scores, operator.outputs[-1])


CONVERTERS: Converters = {
    **dict.fromkeys(
        [
            DecisionTreeClassifier,
            DecisionTreeRegressor,
            ExtraTreeClassifier,
            ExtraTreeRegressor,
            ExtraTreesClassifier,
            ExtraTreesRegressor,
            RandomForestClassifier,
            RandomForestRegressor,
        ],
        _forest,
    ),
    GradientBoostingClassifier: _gradient_boosting,
    GradientBoostingRegressor: _gradient_boosting,
    HistGradientBoostingClassifier: _histogram_boosting,
    HistGradientBoostingRegressor: _histogram_boosting,
}
"""The converter of a step, by its type."""
