"""Settings of the inference service."""

from pydantic import Field

from shared.settings import Settings


class InferenceSettings(Settings):
    """Limits of models and of calls."""

    model_limit_bytes: int = Field(64 * 1024**2, ge=1024, description="Largest ONNX file: boosted trees take 1 MB.")
    row_limit: int = Field(10_000, ge=1, description="Most rows in one call.")
    text_limit: int = Field(1_000, ge=1, description="Longest string in a column, in characters.")
    node_limit: int = Field(10_000, ge=1, description="Most nodes of a graph, subgraphs included.")
    tolerance_limit: float = Field(
        1e-3,
        gt=0,
        description="Largest difference of a score that a manifest may accept without a `tolerance_reason`.",
    )
    trial_seconds: int = Field(60, ge=1, description="Longest trial run of an uploaded model.")
    trial_bytes: int = Field(4 * 1024**3, ge=1024**2, description="Most memory of a trial run.")
    session_limit: int = Field(32, ge=1, description="Models held in memory; the longest unused goes first.")
