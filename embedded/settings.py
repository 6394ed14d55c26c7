"""Where the embedded stack keeps its files, and which ports Kafka and Valkey get."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError

from embedded.errors import SettingError
from shared.settings import Settings


def _home() -> Path:
    return Path(os.environ.get("CONTENDER_HOME", Path.home() / ".contender"))


class StackSettings(Settings):
    """Settings of `contender up`, beside those of the services it starts."""

    home: Path = Field(default_factory=_home, description="Folder of the embedded stack: cache/ and data/.")
    kafka_port: int = Field(8405, ge=1, le=65535, description="Port of the embedded Kafka.")
    kafka_controller_port: int = Field(8406, ge=1, le=65535, description="Port of the embedded Kafka's controller.")
    valkey_port: int = Field(8407, ge=1, le=65535, description="Port of the embedded Valkey.")
    kafka_heap: str = Field("1g", description="Largest heap of the embedded Kafka, as Java spells it.")
    maven_repository: str = Field("", description="Maven repository for Kafka's jars; default: Maven Central.")
    free_bytes: int = Field(500 * 1024**2, ge=0, description="Room on the disk without which `up` does not start.")
    start_patience_s: float = Field(
        300.0,
        gt=0,
        description="How long `up` waits for a process that shows no progress: Kafka checks its logs after a crash.",
    )
    live_patience_s: float = Field(
        20.0,
        gt=0,
        description="A process that does not answer /livez for so long is replaced: longer than any pause of its work, "
        "and the next one answers within 45 s.",
    )
    log_limit_bytes: int = Field(
        16 * 1000**2, ge=10_000, description="Most bytes of one process's logs: a day of a quiet stack fits."
    )

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
        """What the supervisor did, and why."""
        return self.logs / "supervisor.log"

    @property
    def state_file(self) -> Path:
        """What runs, for `status` and `down`."""
        return self.data_folder / "stack.json"

    @classmethod
    def load(cls) -> Self:
        """Read the environment.

        Raises:
            SettingError: a variable has a value that can't be.
        """
        try:
            return cls()
        except ValidationError as error:
            [fault, *_] = error.errors()
            name = str(fault["loc"][0])
            schema = cls.model_json_schema()["properties"][name]
            variable = f"CONTENDER_{name.upper()}"
            raise SettingError(variable, fault["input"], _takes(schema), schema["description"]) from error

    def child_environment(self) -> dict[str, str]:
        """The environment of the stack's own services: this one and these settings, with the stack's own addresses."""
        given = {f"CONTENDER_{name.upper()}": str(getattr(self, name)) for name in sorted(self.model_fields_set)}
        return {
            **os.environ,
            **given,
            "CONTENDER_HOME": str(self.home),
            "CONTENDER_DATA": str(self.data_folder),
            "CONTENDER_KAFKA": f"127.0.0.1:{self.kafka_port}",
            "CONTENDER_REDIS": f"redis://127.0.0.1:{self.valkey_port}/0",
            **import_environment(),
        }


def import_environment() -> dict[str, str]:
    """Lets Python find this distribution's packages first, and modules of the folder where one stands last.

    That folder may have a `services` or `shared` of its own, and it may hold the feature definitions.
    """
    own = str(Path(__file__).parents[1])
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    folders = dict.fromkeys([own, *(folder for folder in given if folder), str(Path.cwd())])
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(folders)}


def _takes(schema: Mapping[str, Any]) -> str:
    """What a setting may be, in words."""
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    kind = {"integer": "a whole number"}.get(schema["type"], schema["type"])
    bounds = [f"{word} {schema[bound]}" for word, bound in (("from", "minimum"), ("to", "maximum")) if bound in schema]
    return " ".join([kind, *bounds])
