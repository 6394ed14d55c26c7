"""Settings of the inference service."""

from pydantic import Field

from shared.settings import Settings


class InferenceSettings(Settings):
    """Limits of models and of calls."""

    model_limit_bytes: int = Field(64 * 1024**2, ge=1024, description="Largest ONNX file: boosted trees take 1 MB.")
    manifest_limit_bytes: int = Field(
        1024**2, ge=1024, description="Largest manifest; one of 1,000 columns takes 100 KB."
    )
    sample_limit_bytes: int = Field(16 * 1024**2, ge=1024, description="Largest sample of an upload.")
    row_limit: int = Field(10_000, ge=1, description="Most rows in one call.")
    text_limit: int = Field(1_000, ge=1, description="Longest string in a column, in characters.")
    node_limit: int = Field(10_000, ge=1, description="Most nodes of a graph, subgraphs included.")
    tolerance_limit: float = Field(
        1e-3,
        gt=0,
        description="Largest difference of a score that a manifest may accept without a `tolerance_reason`.",
    )
    trial_seconds: int = Field(
        5, ge=1, description="Longest trial run of an uploaded model; a forest of 600 trees takes half a second."
    )
    trial_bytes: int = Field(2 * 1024**3, ge=1024**2, description="Most memory of a trial run, and of opening a model.")
    trial_limit: int = Field(2, ge=1, description="Trials that run at once.")
    trial_queue_limit: int = Field(8, ge=0, description="Uploads that wait for a trial; more get 503.")
    session_limit: int = Field(32, ge=1, description="Models open in the web process; the longest unused goes first.")
    process_limit: int = Field(
        4,
        ge=1,
        description="Processes for models whose cost is unknown, one each; the longest idle one is ended first.",
    )
    process_idle_seconds: float = Field(300.0, gt=0, description="How long a model's process stays without calls.")
    process_bytes: int = Field(
        256 * 1024**2, ge=1024**2, description="Most memory that a call may take in a model's process."
    )
    open_seconds: float = Field(15.0, gt=0, description="Longest that opening a model may take.")
    run_seconds: float = Field(2.0, gt=0, description="Longest that a model may take for one row.")
    answer_seconds: float = Field(
        2.7, gt=0, description="Longest that a call's rows may take: less than the router's time for a call of scores."
    )
    call_limit: int = Field(2, ge=1, description="Calls that one version answers at once in the web process.")
    call_queue_limit: int = Field(64, ge=0, description="Calls that wait for one version; more get 503.")
