"""Where the embedded stack keeps its files, and which ports Kafka and Valkey get."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError
from pydantic_settings import SettingsConfigDict

from embedded.errors import SettingError
from shared.settings import Settings


def _home() -> Path:
    return Path(os.environ.get("CONTENDER_HOME", Path.home() / ".contender"))


class StackSettings(Settings):
    """Settings of `contender up`, beside those of the services it starts."""

    model_config = SettingsConfigDict(populate_by_name=True)

    home: Path = Field(default_factory=_home, description="Folder of the embedded stack: cache/ and data/.")
    kafka_port: int = Field(8405, ge=1, le=65535, description="Port of the embedded Kafka.")
    kafka_controller_port: int = Field(8406, ge=1, le=65535, description="Port of the embedded Kafka's controller.")
    valkey_port: int = Field(8407, ge=1, le=65535, description="Port of the embedded Valkey.")
    kafka_heap: str = Field("1g", description="Largest heap of the embedded Kafka, as Java spells it.")
    maven_repository: str = Field("", description="Maven repository for Kafka's jars; default: Maven Central.")
    free_bytes: int = Field(500 * 1024**2, ge=0, description="Free bytes on the disk that `up` needs to start.")
    start_stall_timeout_s: float = Field(
        300.0,
        gt=0,
        validation_alias="CONTENDER_START_PATIENCE_S",
        description="Seconds that `up` waits for a process without progress: Kafka checks its logs after a crash.",
    )
    live_stall_timeout_s: float = Field(
        20.0,
        gt=0,
        validation_alias="CONTENDER_LIVE_PATIENCE_S",
        description="Seconds without an answer to /livez after which a process is replaced: longer than any pause of "
        "its work, and short enough that the next process answers within 45 s.",
    )
    log_limit_bytes: int = Field(
        16 * 1000**2, ge=10_000, description="Most bytes of one process's logs: those of a quiet day fit."
    )

    @property
    def kafka_address(self) -> str:
        """Where clients reach the embedded Kafka."""
        return f"127.0.0.1:{self.kafka_port}"

    @property
    def jar_cache(self) -> Path:
        """Kafka's jars; kept by `down --purge`."""
        return self.home / "cache" / "jars"

    @property
    def data_folder(self) -> Path:
        """Everything else; removed by `down --purge`."""
        return self.home / "data"

    @property
    def logs(self) -> Path:
        """One file per process."""
        return self.data_folder / "logs"

    @property
    def supervisor_log(self) -> Path:
        """The supervisor's own lines: what it did, and why."""
        return self.logs / "supervisor.log"

    @property
    def state_file(self) -> Path:
        """The processes that run, for `status` and `down`."""
        return self.data_folder / "stack.json"

    @classmethod
    def load(cls) -> Self:
        """Read the environment.

        Raises:
            SettingError: a variable has an invalid value.
        """
        try:
            return cls()
        except ValidationError as error:
            [fault, *_] = error.errors()
            location = str(fault["loc"][0])  # a field's name, or the variable that is its alias
            name = next(name for name, field in cls.model_fields.items() if location in (name, field.validation_alias))
            schema = cls.model_json_schema(by_alias=False)["properties"][name]
            variable = location if name != location else f"CONTENDER_{name.upper()}"
            raise SettingError(variable, fault["input"], _takes(schema), schema["description"]) from error

    def child_environment(self) -> dict[str, str]:
        """The environment of the stack's services: this process's, these settings, and the stack's own addresses."""
        changed = {f"CONTENDER_{name.upper()}": str(getattr(self, name)) for name in sorted(self.model_fields_set)}
        return {
            **os.environ,
            **changed,
            "CONTENDER_HOME": str(self.home),
            "CONTENDER_DATA": str(self.data_folder),
            "CONTENDER_KAFKA": self.kafka_address,
            "CONTENDER_REDIS": f"redis://127.0.0.1:{self.valkey_port}/0",
            **import_environment(),
        }


def import_environment() -> dict[str, str]:
    """Variables that put the stack's folder first on a process's import path and keep the working directory off it.

    The working directory may have a `services`, a `shared` or a `redis` of its own. Feature definitions that lie there
    are found all the same: `contender.features` looks there after everything that is installed.
    """
    stack_folder = Path(__file__).resolve().parents[1]
    working_directory = Path.cwd()
    inherited = [Path(folder) for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    others = [str(folder) for folder in inherited if folder.resolve() not in (stack_folder, working_directory)]
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join([str(stack_folder), *others])}


def _takes(schema: Mapping[str, Any]) -> str:
    """The values that a setting takes, in words."""
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    kind = {"integer": "a whole number"}.get(schema["type"], schema["type"])
    bounds = [f"{word} {schema[bound]}" for word, bound in (("from", "minimum"), ("to", "maximum")) if bound in schema]
    return " ".join([kind, *bounds])
