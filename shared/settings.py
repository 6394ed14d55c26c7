"""What every process can be told from outside, as CONTENDER_* variables."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

ServiceName = Literal["ab_router", "feature_service", "inference_service", "feedback_service"]


class Settings(BaseSettings):
    """Settings of every service, each read from CONTENDER_<NAME>; a value that can't be is named at start."""

    model_config = SettingsConfigDict(env_prefix="CONTENDER_", extra="ignore", frozen=True)

    host: str = Field("127.0.0.1", description="Address the services listen on.")
    ab_router_port: int = Field(8400, ge=0, le=65535, description="Port of the router.")
    feature_service_port: int = Field(8401, ge=0, le=65535, description="Port of the feature service.")
    inference_service_port: int = Field(8402, ge=0, le=65535, description="Port of the inference service.")
    feedback_service_port: int = Field(8403, ge=0, le=65535, description="Port of the feedback service.")
    ab_router_url: str = Field("", description="Where the router is reached; default: its port on this machine.")
    feature_service_url: str = Field("", description="Where the feature service is reached.")
    inference_service_url: str = Field("", description="Where the inference service is reached.")
    feedback_service_url: str = Field("", description="Where the feedback service is reached.")
    kafka: str = Field("127.0.0.1:8405", description="Kafka bootstrap servers, comma-separated.")
    redis: str = Field("redis://127.0.0.1:8407/0", description="URL of Redis or Valkey.")
    database: str = Field("", description="SQLAlchemy URL; default: a SQLite file in the service's data folder.")
    data: Path = Field(Path.home() / ".contender" / "data", description="Folder of journals, SQLite and model files.")
    partitions: int = Field(4, ge=1, le=4096, description="Partitions of a topic that is created here.")
    replication: int = Field(1, ge=1, le=7, description="Replicas of a topic that is created here.")
    journal_limit_bytes: int = Field(
        2 * 1024**3, ge=1024**2, description="Unsent events a journal holds before it refuses: hours of an outage."
    )
    worker_patience_s: float = Field(
        60.0,
        gt=0,
        description="How long a worker may wait for its partitions without getting on before it ends with 1.",
    )
    body_limit_bytes: int = Field(4 * 1024**2, ge=1024, description="Largest request body: a batch of wide rows fits.")
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
        given = str(getattr(self, f"{service}_url"))
        return given.rstrip("/") or f"http://127.0.0.1:{self.port(service)}"

    def folder(self, service: ServiceName) -> Path:
        """The service's own folder, made when it is missing."""
        folder = self.data / service
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def database_url(self, service: ServiceName) -> str:
        """The SQLAlchemy URL of the service's own database."""
        return self.database or f"sqlite+aiosqlite:///{self.folder(service) / 'store.db'}"

    @classmethod
    def load(cls) -> Self:
        """Read the environment."""
        return cls()
