"""The services of the stack as processes."""

import sys
from dataclasses import dataclass

import msgspec

from embedded.ports import NeededPort
from embedded.process import ManagedProcess, Readiness, answers_ok, get
from embedded.settings import StackSettings
from shared.settings import ServiceName

READINESS_TIMEOUT_S = 10.0
"""Long, so that the progress of a worker shows even when a busy machine makes it answer late."""


@dataclass(frozen=True, slots=True)
class ServiceProcess:
    """A process of a service: `python -m services.<service> <role>`."""

    service: ServiceName
    role: str

    @property
    def name(self) -> str:
        """Its name in `status`, in `logs` and in the compose file."""
        return self.service if self.role == "web" else f"{self.service.removesuffix('_service')}_{self.role}"

    @property
    def command(self) -> list[str]:
        """The arguments of `python` that start it."""
        return ["-m", f"services.{self.service}", self.role]

    def port(self, settings: StackSettings) -> int:
        """The port on which it answers /readyz."""
        return settings.port(self.service) if self.role == "web" else settings.worker_port(self.service)

    def needed_port(self, settings: StackSettings) -> NeededPort:
        """The port, and the variable that moves it."""
        port = self.port(settings)
        return NeededPort(port, f"CONTENDER_{self.service.upper()}_PORT", port - settings.port(self.service))


SERVICES: tuple[ServiceProcess, ...] = (
    ServiceProcess("inference_service", "web"),
    ServiceProcess("feature_service", "web"),
    ServiceProcess("feature_service", "worker"),
    ServiceProcess("feedback_service", "web"),
    ServiceProcess("feedback_service", "worker"),
    ServiceProcess("ab_router", "web"),
    ServiceProcess("ab_router", "worker"),
)


def needed_ports(settings: StackSettings) -> dict[str, list[NeededPort]]:
    """Every port of the stack by the name of its process."""
    kafka = [
        NeededPort(settings.kafka_port, "CONTENDER_KAFKA_PORT"),
        NeededPort(settings.kafka_controller_port, "CONTENDER_KAFKA_CONTROLLER_PORT"),
    ]
    valkey = [NeededPort(settings.valkey_port, "CONTENDER_VALKEY_PORT")]
    services = {process.name: [process.needed_port(settings)] for process in SERVICES}
    return {"kafka": kafka, "valkey": valkey, **services}


class Service(ManagedProcess):
    """A process that answers over HTTP whether it lives, whether it is ready, and how far it has come."""

    def __init__(self, process: ServiceProcess, settings: StackSettings) -> None:
        super().__init__(
            process.name,
            [sys.executable, *process.command],
            port=process.port(settings),
            log=settings.logs / f"{process.name}.log",
            env=settings.child_environment(),
        )
        self.essential = process.role == "web"  # a worker that is behind or fails only delays results

    def is_ready(self) -> bool:
        """Whether /readyz answers 200."""
        return self.alive and answers_ok("127.0.0.1", self.port, "/readyz")

    def is_live(self, timeout_s: float) -> bool:
        """Whether /livez answers within that time."""
        return self.alive and get("127.0.0.1", self.port, "/livez", timeout_s)[0] != 0

    def readiness(self) -> Readiness:
        """The status and the progress of its /readyz."""
        status, body = get("127.0.0.1", self.port, "/readyz", READINESS_TIMEOUT_S)
        return Readiness(self.alive and status == 200, _progress(body))  # noqa: PLR2004


class _ReadinessBody(msgspec.Struct):
    """The body of a worker's /readyz: counters that move while it makes progress."""

    progress: dict[str, int] = {}


def _progress(body: bytes) -> str:
    """Counters in words, such as "34,000 recovered, 2 rebalances"; empty without counters."""
    try:
        counters = msgspec.json.decode(body, type=_ReadinessBody).progress
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    return ", ".join(f"{count:,} {name}" for name, count in counters.items() if count > 0)
