"""The stack's own services as processes, and the list of them."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from contender.embedded.ports import NeededPort
from contender.embedded.process import ManagedProcess, answers_ok
from contender.embedded.settings import StackSettings
from shared.settings import ServiceName


@dataclass(frozen=True, slots=True)
class ServiceProcess:
    """A process of a service: `python -m services.<service> <role>`."""

    service: ServiceName
    role: str

    @property
    def name(self) -> str:
        """Its name in `status`, in `logs` and in the compose file."""
        return self.service if self.role == "web" else self.service.replace("_service", f"_{self.role}")

    @property
    def command(self) -> list[str]:
        """What starts it, after `python`."""
        return ["-m", f"services.{self.service}", self.role]

    def port(self, settings: StackSettings) -> int:
        """Where it answers /readyz."""
        return settings.port(self.service) if self.role == "web" else settings.worker_port(self.service)

    def needed_port(self, settings: StackSettings) -> NeededPort:
        """That port with what moves it."""
        port = self.port(settings)
        return NeededPort(port, f"CONTENDER_{self.service.upper()}_PORT", port - settings.port(self.service))


SERVICES: tuple[ServiceProcess, ...] = (
    ServiceProcess("inference_service", "web"),
    ServiceProcess("feature_service", "web"),
    ServiceProcess("feature_service", "worker"),
    ServiceProcess("feedback_service", "web"),
    ServiceProcess("feedback_service", "worker"),
    ServiceProcess("ab_router", "web"),
)


class Service(ManagedProcess):
    """A process that says over HTTP whether it is ready."""

    def __init__(self, process: ServiceProcess, settings: StackSettings) -> None:
        super().__init__(
            process.name,
            _python(process.command),
            port=process.port(settings),
            log=settings.logs / f"{process.name}.log",
            env=settings.child_environment(),
        )

    def is_ready(self) -> bool:
        """Whether /readyz answers 200."""
        return self.alive and answers_ok("127.0.0.1", self.port, "/readyz")


def _python(arguments: Sequence[str]) -> list[str | Path]:
    return [sys.executable, *arguments]
