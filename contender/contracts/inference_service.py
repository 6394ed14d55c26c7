"""The inference service's calls: the registry of models, and predictions of rows."""

import msgspec

from contender.contracts.problems import ProblemType
from contender.contracts.tasks import TaskName
from contender.contracts.values import Dtype, Scalar

UNKNOWN_MODEL = ProblemType("unknown-model", 404, "No model of that name is registered.")
UNKNOWN_VERSION = ProblemType("unknown-version", 404, "The model has no such version.")
VERSION_CONFLICT = ProblemType(
    "version-conflict", 409, "The ONNX file is registered already, with another description of its inputs."
)
UNSAFE_MODEL = ProblemType("unsafe-model", 422, "The ONNX file is not one that is run here.")
PARITY = ProblemType("parity", 422, "The version's answers differ from scikit-learn's on its own sample.")
MANIFEST = ProblemType("manifest", 422, "The manifest does not fit the model.")
ANSWER = ProblemType("answer", 422, "The model fails on these rows, or gives them no finite scores.")
UNREADABLE_VERSION = ProblemType(
    "unreadable-version",
    500,
    "The registry's row of the version can't be read; an operator has to repair or delete it.",
)
VERSION_UNAVAILABLE = ProblemType("version-unavailable", 503, "The version can't be opened at the moment.")
REGISTRY_UNAVAILABLE = ProblemType("registry-unavailable", 503, "The registry can't be reached.")


class InputColumn(msgspec.Struct, frozen=True, omit_defaults=True):
    """A named input of a model: its type, where its value comes from, what stands in.

    `source` is `request` or the `view:feature` that serves it. `default` stands in for every missing or null value,
    whatever the type. Without one a null is NaN in a float column and `null_text` in a text column, where the column
    is not required; elsewhere it is refused. `tensor` is the ONNX file's input for it: empty means the column's name.
    """

    name: str
    dtype: Dtype
    source: str = "request"
    default: Scalar = None
    required: bool = True
    tensor: str = ""
    null_text: str = ""


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True):
    """An immutable model version, named by the sha256 of its ONNX file, with what a caller must know to use it.

    `score_output` and `label_output` name outputs of the file. Empty means the first tensor of floats, and no label:
    the likeliest class is the label then. A label tensor holds the classes themselves; booleans are 0 and 1.
    """

    model: str
    version: str
    task: TaskName
    classes: list[Scalar] = []
    inputs: list[InputColumn]
    entities: dict[str, list[str]] = {}
    registered_at: float
    champion: bool = False
    description: str = ""
    score_output: str = ""
    label_output: str = ""
    manifest: dict[str, object] = {}


class RowFault(msgspec.Struct, frozen=True):
    """Why one row of a question has no answer: `row` counts from 0, `field` is such as `inputs.plan`.

    `status` is 422 where the row itself is the cause, 503 where the same row may be answered later.
    """

    row: int
    status: int
    field: str
    message: str
