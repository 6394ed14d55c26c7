"""Settings of every process, read from CONTENDER_* variables."""

from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.retention import Retention

ServiceName = Literal["ab_router", "feature_service", "inference_service", "feedback_service"]
SERVICE_NAMES: tuple[ServiceName, ...] = get_args(ServiceName)


class Settings(BaseSettings):
    """Settings of every service, each read from CONTENDER_<NAME>.

    An invalid value stops the start with a message that names the variable.
    """

    model_config = SettingsConfigDict(env_prefix="CONTENDER_", extra="ignore", frozen=True, validate_by_name=True)

    host: str = Field("127.0.0.1", description="Address the services listen on.")
    ab_router_port: int = Field(8400, ge=0, le=65535, description="Port of the router.")
    feature_service_port: int = Field(
        8401, ge=0, le=65535, description="Port of the feature service; its worker listens ten above it, on 8411."
    )
    inference_service_port: int = Field(8402, ge=0, le=65535, description="Port of the inference service.")
    feedback_service_port: int = Field(
        8403, ge=0, le=65535, description="Port of the feedback service; its worker listens ten above it, on 8413."
    )
    ab_router_url: str = Field("", description="URL of the router; default: its port on this machine.")
    feature_service_url: str = Field("", description="URL of the feature service; default: its port on this machine.")
    inference_service_url: str = Field(
        "", description="URL of the inference service; default: its port on this machine."
    )
    feedback_service_url: str = Field("", description="URL of the feedback service; default: its port on this machine.")
    kafka: str = Field("127.0.0.1:8405", description="Kafka bootstrap servers, comma-separated.")
    redis: str = Field("redis://127.0.0.1:8407/0", description="URL of Redis or Valkey.")
    redis_cluster: bool = Field(
        default=False,
        description="Whether CONTENDER_REDIS is a node of a cluster, for features and for the router's counts.",
    )
    database: str = Field("", description="SQLAlchemy URL; default: a SQLite file in the service's data folder.")
    data: Path = Field(Path.home() / ".contender" / "data", description="Folder of journals, SQLite and model files.")
    partitions: int = Field(4, ge=1, le=4096, description="Partitions of each topic that a service creates.")
    replication: int = Field(1, ge=1, le=7, description="Replicas of each topic that a service creates.")
    retention_s: float = Field(
        7 * 86_400.0,
        ge=3_600,
        description="Seconds that topics keep events: a week leaves time to repair a worker and to rebuild results.",
    )
    predictions_retention_bytes: int = Field(
        4 * 1024**3, ge=0, description="Most bytes of topic predictions: half a day at 300 a second. 0: no limit."
    )
    feedback_retention_bytes: int = Field(
        2 * 1024**3, ge=0, description="Most bytes of topic feedback, whose records are smaller. 0: no limit."
    )
    entity_events_retention_bytes: int = Field(
        4 * 1024**3, ge=0, description="Most bytes of topic entity-events: features are filled from it. 0: no limit."
    )
    verdicts_retention_bytes: int = Field(
        128 * 1024**2, ge=0, description="Most bytes of topic verdicts: 100,000 of them; SQL keeps all. 0: no limit."
    )
    parked_retention_bytes: int = Field(
        256 * 1024**2, ge=0, description="Most bytes of topic parked: 4,000 of the longest records. 0: no limit."
    )
    journal_limit_bytes: int = Field(
        2 * 1024**3,
        ge=1024**2,
        description="Bytes of unsent events a journal holds before it refuses more: hours of an outage.",
    )
    worker_stall_timeout_s: float = Field(
        60.0,
        gt=0,
        validation_alias="CONTENDER_WORKER_PATIENCE_S",
        description="Seconds a worker may wait for its partitions without progress; then it exits with status 1 and "
        "its supervisor restarts it.",
    )
    body_limit_bytes: int = Field(
        4 * 1024**2, ge=1024, description="Largest request body, then 413: a batch of wide rows fits."
    )
    head_limit_bytes: int = Field(
        32 * 1024,
        ge=1024,
        le=1024**2,
        description="Largest request head, then 431: a browser sends the cookies of all ports of a machine.",
    )
    head_fields_limit: int = Field(100, ge=10, le=10_000, description="Most header fields of a request, then 431.")
    head_timeout_s: float = Field(
        10.0, gt=0, description="Longest a request's head may take from the connection or its first byte, then 408."
    )
    body_timeout_s: float = Field(
        10.0,
        gt=0,
        description="Longest a request's body may stand still or be slower than the slowest rate, then 408.",
    )
    body_slowest_bytes_per_s: int = Field(
        16 * 1024, ge=1, description="Slowest rate of a body: each byte that comes extends the time by its share."
    )
    idle_timeout_s: float = Field(
        30.0,
        gt=0,
        description="Longest a connection may wait for its next request, or a client leave an answer unread. Clients "
        "must keep theirs for less (the router does for 5 s), or they use connections that are just being closed.",
    )
    connection_limit: int = Field(
        800,
        ge=10,
        description="Most open connections of a process, below the 1,024 files that it usually may open. One more ends "
        "the connection that has waited longest, or gets 503 when all of them are busy.",
    )
    allowed_hosts: str = Field(
        "",
        description="Names in the header Host that are served, comma-separated, beside localhost, IP addresses, "
        "CONTENDER_HOST and the names in CONTENDER_*_URL; `*.example.com` is every name below, `*` any. Others get "
        "421, so that a foreign name that resolves to this machine (DNS rebinding) reaches nothing.",
    )
    allowed_origins: str = Field(
        "",
        description="Web origins such as `https://ml.example.com`, comma-separated, whose pages may change things here "
        "(POST, PUT, PATCH, DELETE), beside the service's own; pages of others get 403.",
    )
    log_format: Literal["json", "console"] = Field("json", description="How log lines are written.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level logged.")

    def port(self, service: ServiceName) -> int:
        """The port a service's web process listens on."""
        return int(getattr(self, f"{service}_port"))

    def worker_port(self, service: ServiceName) -> int:
        """The port of a service's worker for /livez, /readyz and /metrics: ten above the web port."""
        return self.port(service) + 10

    def url(self, service: ServiceName) -> str:
        """Where a service is reached, without a trailing slash."""
        url = str(getattr(self, f"{service}_url"))
        return url.rstrip("/") or f"http://127.0.0.1:{self.port(service)}"

    def folder(self, service: ServiceName) -> Path:
        """The service's own folder, made when it is missing."""
        folder = self.data / service
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # it will hold units and inputs
        return folder

    def database_url(self, service: ServiceName) -> str:
        """The SQLAlchemy URL of the service's own database."""
        return self.database or f"sqlite+aiosqlite:///{self.folder(service) / 'store.db'}"

    @property
    def retention(self) -> Retention:
        """How much the topics keep."""
        return Retention(
            self.retention_s,
            {
                "predictions": self.predictions_retention_bytes,
                "feedback": self.feedback_retention_bytes,
                "entity-events": self.entity_events_retention_bytes,
                "verdicts": self.verdicts_retention_bytes,
                "parked": self.parked_retention_bytes,
            },
        )

    @classmethod
    def load(cls) -> Self:
        """Read the environment."""
        return cls()
