"""What a version costs: what a trial measured, and whether a run's memory and time follow from its number of rows."""

from collections.abc import Mapping

import msgspec
import onnx

from contender.contracts.values import Scalar

RULES = 1
"""Number of these rules: a trial under other rules is run again."""
_QUICK_ROW_MS = 1.0
_QUICK_OPENING_MS = 2_000.0

_STATISTICAL = "ai.onnx.ml"
_UNBOUNDED_STATISTICAL = frozenset({"CategoryMapper", "DictVectorizer", "ZipMap"})

_PLAIN_NAMES = """Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast
    CastLike Ceil Celu Clip Concat Constant Conv Cos Cosh CumSum Div Dropout Einsum Elu Equal Erf Exp Flatten Floor
    Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual HardSigmoid
    HardSwish Hardmax Identity InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual Log
    LogSoftmax LpNormalization MatMul Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg Not Or PRelu Pow
    Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Relu Round ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax
    Softplus Softsign Sqrt StringNormalizer Sub Sum Tan Tanh TfIdfVectorizer ThresholdedRelu Transpose Trilu Where
    Xor"""
_PLAIN = frozenset(_PLAIN_NAMES.split())
"""Operators whose results are as large as the shapes of their inputs say, and whose time follows from it."""

_SHAPED: Mapping[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
}
"""Operators whose results are as large as the values of these inputs say: they must not come from the rows."""

_SHAPE_OF = frozenset({"Shape", "Size"})


def follows_from_rows(model: onnx.ModelProto) -> bool:
    """Whether nothing in a row's values decides how large the run's tensors become or how often a node runs.

    That is so for a graph without graphs inside (Loop, Scan, If) of operators that are known here, where every shape
    comes from constants and from the shapes of other tensors. Where this is not known, the answer is no.
    """
    graph = model.graph
    inputs = {value.name for value in graph.input}
    fixed = {tensor.name for tensor in graph.initializer} | {tensor.values.name for tensor in graph.sparse_initializer}
    fixed -= inputs  # a caller may send another value for it
    for node in graph.node:
        if not _is_known(node) or not all(node.input[at] in fixed for at in _shape_inputs(node)):
            return False
        if node.op_type in _SHAPE_OF or all(name in fixed or not name for name in node.input):
            fixed.update(node.output)
    return True


def _is_known(node: onnx.NodeProto) -> bool:
    if node.domain == _STATISTICAL:
        return node.op_type not in _UNBOUNDED_STATISTICAL
    return node.op_type in _PLAIN or node.op_type in _SHAPED


def _shape_inputs(node: onnx.NodeProto) -> list[int]:
    """Which of the node's inputs say how large its result is."""
    if node.domain == _STATISTICAL:
        return []
    return [at for at in _SHAPED.get(node.op_type, ()) if at < len(node.input) and node.input[at]]


class TrialRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of a version, and a row that it answers.

    Args:
        rules: number of the rules by which the graph was judged (see domain.cost).
        bounded: by them, memory and time of a run follow from the number of rows, and a large run kept to its limit.
        opening_ms: time of opening the model.
        row_ms: time of a row, the larger of a row alone and a row among many.
        reference: a value for each column of a row that has a score; empty where none is known.
    """

    rules: int = RULES
    bounded: bool = False
    opening_ms: float = 0.0
    row_ms: float = 0.0
    reference: dict[str, Scalar] = {}

    @property
    def quick(self) -> bool:
        """Whether the version may run in the threads of the web process."""
        return self.bounded and self.row_ms < _QUICK_ROW_MS and self.opening_ms < _QUICK_OPENING_MS
