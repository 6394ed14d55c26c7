"""The inference service's own calls: the registry of models, and predictions of rows."""

from typing import Annotated, Any, Self

import msgspec

from contender.contracts import limits
from contender.contracts.operation import Operation
from contender.contracts.problems import OVERLOADED, UNAVAILABLE, ProblemType
from contender.contracts.tasks import TaskName
from contender.contracts.values import Dtype, Scalar, Score

UNKNOWN_MODEL = ProblemType("unknown-model", 404, "No model of that name is registered.")
NO_PROMOTION = ProblemType("no-promotion", 409, "The model has had one champion alone: there is none to go back to.")
UNKNOWN_VERSION = ProblemType("unknown-version", 404, "The model has no such version.")
UPLOAD_NOT_KEPT = ProblemType(
    "upload-not-kept", 404, "The version was registered before uploads were kept: register it again."
)
VERSION_CONFLICT = ProblemType(
    "version-conflict", 409, "The ONNX file is registered already, with another description of its inputs."
)
UNSAFE_MODEL = ProblemType(
    "unsafe-model", 422, "The ONNX file breaks a rule for files that are run here; the detail names it."
)
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
    `target_range` is the lowest and the highest target that a regression was trained on, where that was recorded.
    `categories` are the values that an encoder knows, by text column: those with 200 of them at most.
    """

    model: str
    version: str
    task: TaskName
    classes: list[Scalar] = []
    inputs: list[InputColumn]
    registered_at: float
    champion: bool = False
    description: str = ""
    score_output: str = ""
    label_output: str = ""
    target_range: tuple[float, float] | None = None
    categories: dict[str, list[str]] = {}


class VersionDetails(ModelVersion, frozen=True, kw_only=True):
    """A version with its manifest: what it was made from, and how it compares with scikit-learn."""

    manifest: dict[str, Any] = {}

    @classmethod
    def of(cls, version: ModelVersion, manifest: dict[str, Any]) -> Self:
        """The version with a manifest."""
        return cls(**{name: getattr(version, name) for name in ModelVersion.__struct_fields__}, manifest=manifest)


class VersionList(msgspec.Struct, frozen=True):
    """Versions, oldest first."""

    versions: list[ModelVersion]


class ModelVersions(msgspec.Struct, frozen=True):
    """A model's versions, oldest first; `champion` names the one that answers outside of experiments."""

    model: str
    champion: str | None
    versions: list[ModelVersion]


class Manifest(msgspec.Struct, frozen=True):
    """The part of a manifest that the service itself reads; it keeps the other fields as they are.

    `tolerance` is the largest difference of a score from scikit-learn's. Beyond the service's limit it needs a
    `tolerance_reason`. `target_range` is the lowest and the highest target of a regression's training.
    `categories` are the values that an encoder knows, by text column.
    """

    task: TaskName
    inputs: list[InputColumn]
    classes: list[Scalar] = []
    description: str = ""
    tolerance: float = 1e-5
    tolerance_reason: str = ""
    score_output: str = ""
    label_output: str = ""
    target_range: tuple[float, float] | None = None
    categories: dict[str, list[str]] = {}


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows with scikit-learn's own scores and labels; without labels only scores are compared."""

    inputs: dict[str, list[Scalar]]
    scores: list[Score]
    labels: list[Scalar] = []


_FILE = msgspec.Meta(extra_json_schema={"format": "binary"})


class VersionUpload(msgspec.Struct, frozen=True):
    """The three files of an upload: the ONNX model, a Manifest in JSON, and a Sample in JSON."""

    onnx: Annotated[str, _FILE]
    manifest: Annotated[str, _FILE]
    sample: Annotated[str, _FILE]


class VersionSummary(msgspec.Struct, frozen=True):
    """A version by name; `alias` is `champion`, or null."""

    model: str
    version: str
    alias: str | None
    registered_at: float


class RowsQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows by column; all columns are equally long."""

    inputs: dict[str, list[Scalar]]


_Reason = Annotated[str, msgspec.Meta(extra_json_schema={"maxLength": limits.REASON_CHARACTERS})]
_Sentence = Annotated[str, msgspec.Meta(extra_json_schema={"maxLength": limits.EVIDENCE_CHARACTERS})]


class Promotion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The version that becomes the champion, and on whose word: who, why, and the verdict that it rests on.

    `evidence` is the sentence of a verdict with its experiment and number, empty where there is none.
    """

    version: str
    changed_by: _Reason = ""
    reason: _Reason = ""
    experiment: str = ""
    verdict: int | None = None
    evidence: _Sentence = ""
    override: _Reason = ""


class Rollback(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who goes back to the champion before this one, and why."""

    changed_by: _Reason = ""
    reason: _Reason = ""


class PromotionRecord(Promotion, frozen=True, kw_only=True):
    """A promotion as it is on record; `number` counts those of a model from 1, and `replaced` is the champion before.

    `rolls_back` is set where it undoes an earlier promotion: that one's number.
    """

    model: str
    number: int
    at: float
    replaced: str
    rolls_back: int | None = None


class Promotions(msgspec.Struct, frozen=True):
    """A model's promotions, oldest first; its first version became the champion without one."""

    promotions: list[PromotionRecord]


class RowFault(msgspec.Struct, frozen=True):
    """Why one row of a question has no answer: `row` counts from 0, `field` is such as `inputs.plan`.

    `status` is 422 where the row itself is the cause, 503 where the same row may be answered later.
    """

    row: int
    status: int
    field: str
    message: str

    @classmethod
    def of(cls, kind: ProblemType, row: int, field: str, message: str) -> Self:
        """A fault with the status of its kind of problem."""
        return cls(row, kind.status, field, message)

    @property
    def is_temporary(self) -> bool:
        """Whether the same row may be answered later."""
        return self.status >= UNAVAILABLE.status


class ScoredRows(msgspec.Struct, frozen=True):
    """Per row the score and the label, or null; `errors` says why for each null."""

    scores: list[Score | None]
    labels: list[Scalar]
    errors: list[RowFault] = []


_CHURN: dict[str, Any] = {
    "model": "churn",
    "version": "0c912f6d1ab4e15f7a7f3a54d0b1ce2285d4f9c1a1de6f6b2f7f4f3d9a7b8e60",
    "task": "binary",
    "classes": ["no", "yes"],
    "inputs": [{"name": "plan", "dtype": "string"}],
    "registered_at": 1767225600.0,
    "champion": True,
}
_SUMMARY: dict[str, Any] = {
    "model": "churn",
    "version": _CHURN["version"],
    "alias": "champion",
    "registered_at": _CHURN["registered_at"],
}
_PROMOTION: dict[str, Any] = {
    "model": "churn",
    "number": 1,
    "version": _CHURN["version"],
    "replaced": "b7f3",
    "reason": "the experiment's verdict",
    "experiment": "churn-2",
    "verdict": 1,
    "at": 1767829200.0,
}
_UNKNOWN = (UNKNOWN_MODEL, UNKNOWN_VERSION)
_READING = (UNREADABLE_VERSION, REGISTRY_UNAVAILABLE)
_TAG = "models"

LIST_VERSIONS = Operation(
    "list_models",
    "GET",
    "/v1/models",
    "Lists every version of every model, without manifests; If-None-Match with its ETag asks for changes alone.",
    VersionList,
    other_statuses={304: "Nothing has changed since the answer whose ETag If-None-Match names."},
    problems=(REGISTRY_UNAVAILABLE,),
    tag=_TAG,
    answer_example={"versions": [_CHURN]},
)
SHOW_MODEL = Operation(
    "show_model",
    "GET",
    "/v1/models/{model}",
    "Shows a model's versions, oldest first, and its champion.",
    ModelVersions,
    problems=(UNKNOWN_MODEL, *_READING),
    tag=_TAG,
    answer_example={"model": "churn", "champion": _CHURN["version"], "versions": [_CHURN]},
)
SHOW_VERSION = Operation(
    "show_version",
    "GET",
    "/v1/models/{model}/versions/{version}",
    "Shows a version with its manifest; `champion` as the version's name stands for the champion.",
    VersionDetails,
    problems=(*_UNKNOWN, *_READING),
    tag=_TAG,
    answer_example={**_CHURN, "manifest": {"task": "binary", "parity": {"rows": 500, "worst": 3.1e-8}}},
)
DOWNLOAD_FILE = Operation(
    "download_file",
    "GET",
    "/v1/models/{model}/versions/{version}/file",
    "Gives the ONNX file as it was uploaded: with its manifest and sample it is the same version elsewhere.",
    bytes,
    answer_media_type="application/octet-stream",
    problems=(*_UNKNOWN, UPLOAD_NOT_KEPT, *_READING),
    tag=_TAG,
)
SHOW_SAMPLE = Operation(
    "show_sample",
    "GET",
    "/v1/models/{model}/versions/{version}/sample",
    "Shows the sample rows of the version's upload, with scikit-learn's own scores.",
    Sample,
    problems=(*_UNKNOWN, UPLOAD_NOT_KEPT, *_READING),
    tag=_TAG,
    answer_example={"inputs": {"plan": ["pro"]}, "scores": [0.31], "labels": ["no"]},
)
REGISTER_VERSION = Operation(
    "register_version",
    "POST",
    "/v1/models/{model}/versions",
    "Registers a version: its ONNX file, its manifest, and sample rows with scikit-learn's own scores.",
    VersionSummary,
    body=VersionUpload,
    status=201,
    other_statuses={200: "The version was registered before."},
    problems=(
        VERSION_CONFLICT,
        UNSAFE_MODEL,
        PARITY,
        MANIFEST,
        ANSWER,
        *_READING,
        VERSION_UNAVAILABLE,
        OVERLOADED,
    ),
    tag=_TAG,
    body_media_type="multipart/form-data",
    body_example={
        "onnx": "the bytes of model.onnx",
        "manifest": '{"task": "binary", "classes": ["no", "yes"], "inputs": [{"name": "plan", "dtype": "string"}]}',
        "sample": '{"inputs": {"plan": ["pro"]}, "scores": [0.31], "labels": ["no"]}',
    },
    answer_example=_SUMMARY,
    also=(Manifest, Sample),
)
PROMOTE_VERSION = Operation(
    "promote_version",
    "PUT",
    "/v1/models/{model}/aliases/champion",
    "Makes a version the champion, which answers outside of experiments.",
    VersionSummary,
    body=Promotion,
    problems=(*_UNKNOWN, *_READING),
    tag=_TAG,
    body_example={"version": _CHURN["version"], "reason": "the experiment's verdict", "experiment": "churn-2"},
    answer_example=_SUMMARY,
)
ROLL_BACK = Operation(
    "roll_back",
    "POST",
    "/v1/models/{model}/aliases/champion/rollback",
    "Makes the version the champion that was it before the last promotion.",
    VersionSummary,
    body=Rollback,
    body_optional=True,
    problems=(UNKNOWN_MODEL, NO_PROMOTION, *_READING),
    tag=_TAG,
    body_example={"reason": "complaints"},
    answer_example=_SUMMARY,
)
LIST_PROMOTIONS = Operation(
    "list_promotions",
    "GET",
    "/v1/models/{model}/promotions",
    "Lists a model's promotions, oldest first.",
    Promotions,
    problems=(UNKNOWN_MODEL, *_READING),
    tag=_TAG,
    answer_example={"promotions": [_PROMOTION]},
)
PREDICT_ROWS = Operation(
    "predict_rows",
    "POST",
    "/v1/models/{model}/versions/{version}/predict",
    "Scores rows given by column; `errors` says why a row has no score.",
    ScoredRows,
    body=RowsQuestion,
    problems=(*_UNKNOWN, *_READING, VERSION_UNAVAILABLE, OVERLOADED),
    tag=_TAG,
    body_example={"inputs": {"plan": ["pro", 7]}},
    answer_example={
        "scores": [0.31, None],
        "labels": ["no", None],
        "errors": [{"row": 1, "status": 422, "field": "inputs.plan", "message": "is not a string"}],
    },
)
