"""The events that a check keeps: those of sampled entities, by view, from files and from the topic."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from contender.features import Catalogue, EventSource, FeatureView, TrainingSetError
from contender.features.tiles import tile_of
from services.feature_service.definitions import DefinitionsSnapshot, history_of
from services.feature_service.domain import fault
from services.feature_service.frames import ReadFrame
from services.feature_service.history import HistoryChangedError, HistoryCutover, read_history
from services.feature_service.sample import Sample
from shared.logs import logger


@dataclass
class Samples:
    """The samples of all versions of all views, taken in one reading.

    Args:
        catalogue: the definitions.
        now: when the check began, in seconds.
        future_s: how far ahead of its sending an event may be.
        views: one sample per version of a view.
    """

    catalogue: Catalogue
    now: float
    future_s: float
    views: list[Sample]
    _seen: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, current: DefinitionsSnapshot, *, share: float, at: float, now: float, future_s: float) -> "Samples":
        """Empty samples, for values as of `at` or later."""
        catalogue = current.catalogue
        views = []
        for label, view in catalogue.kept.items():
            if not isinstance(view, FeatureView):
                continue
            reaches_s = max(part.window_s for feature in view.aggregations for part in feature.parts)
            opens_s = boundary(at, view.hop_s) - reaches_s
            views.append(Sample(view, label, share, opens_s, current.registered.cutovers.get(label)))
        return cls(catalogue, now, future_s, views)

    def take_history(self) -> None:
        """Read the files of the sources that have some, each once.

        Leaves out a former version whose files have changed or are gone: nobody knows what it was filled from.

        Raises:
            HistoryChangedError: the files of today's definitions have changed since the cutover was decided.
            TrainingSetError: they can't be read.
        """
        groups: list[tuple[EventSource, HistoryCutover, list[Sample]]] = []
        for sample in self.views:
            if sample.cutover is not None:
                source = history_of(self.catalogue, sample.view)
                same_files = next(
                    (group for known, cutover, group in groups if (known, cutover) == (source, sample.cutover)), None
                )
                if same_files is None:
                    groups.append((source, sample.cutover, [sample]))
                else:
                    same_files.append(sample)
        for source, cutover, group in groups:
            try:
                for frame in read_history(source, cutover):
                    for event in frame.events:
                        for sample in group:
                            sample.take(frame.position, event)
            except (HistoryChangedError, TrainingSetError) as error:
                if any(self.catalogue.today.get(sample.view.name) == sample.label for sample in group):
                    raise
                left_out = [sample.label for sample in group]
                self.views = [sample for sample in self.views if sample.label not in left_out]
                logger(__name__).warning("former versions are not checked", versions=left_out, error=str(error))

    def take(self, frames: Iterable[ReadFrame]) -> None:
        """Add frames of the topic, each once; remembers the ids of those that hold sampled events."""
        by_source: dict[str, list[Sample]] = defaultdict(list)
        for sample in self.views:
            by_source[sample.view.source.name].append(sample)
        for position, events, sent_at in frames:
            latest = min(self.now, sent_at) + self.future_s
            if position.frame_id in self._seen:
                continue
            kept = False
            for event in events:
                samples = by_source.get(event.source)
                if samples and fault(event, self.catalogue, latest) is None:
                    for sample in samples:
                        kept |= sample.take(position, event)
            if kept and position.frame_id:
                self._seen.add(position.frame_id)

    def close(self) -> None:
        """From now on keep only events of the entities known so far."""
        for sample in self.views:
            sample.is_closed = True


def boundary(time: float, hop_s: int) -> float:
    """The beginning of the tile that a time lies in."""
    return float(tile_of(time, hop_s)) * hop_s
