"""Use cases of champions: promote a version, go back, list what was promoted. Knows no HTTP."""

from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from contender.contracts.inference_service import ModelVersion, Promotion, PromotionRecord, Rollback
from services.inference_service.domain.promotions import check, record_of, rollback_of, undone_by_rollback
from services.inference_service.errors import NoPromotionError, RegistryError, UnknownModelError
from services.inference_service.handlers import Models
from shared.errors import shortened

_ATTEMPTS = 20
"""Promotions of one model at the same time that one of them lets pass before it gives up."""
Decide = Callable[[list[PromotionRecord], str], PromotionRecord | None]
"""From the records and the champion of now the next record; None: nothing is to change."""


@dataclass(frozen=True, slots=True)
class Champions:
    """The champions of models, each change of which is on record."""

    models: Models

    async def promote(self, model: str, promotion: Promotion) -> ModelVersion:
        """Make a version the champion; nothing goes on record if it is that already.

        Raises:
            UnknownModelError, UnknownVersionError: there is no such version.
            UnreadableVersionError: it can't be read.
            InvalidField: a text is too long, or the evidence names no experiment.
        """
        check(promotion)
        await self.models.named(model, promotion.version)

        def decide(history: list[PromotionRecord], champion: str) -> PromotionRecord | None:
            if promotion.version == champion:
                return None
            return record_of(promotion, model, history, champion, self.models.clock.now())

        return await self._change(model, decide)

    async def roll_back(self, model: str, rollback: Rollback) -> ModelVersion:
        """Make the version the champion that was it before the last promotion that stands.

        Raises:
            UnknownModelError: there is no such model.
            NoPromotionError: no promotion stands.
            UnreadableVersionError: the version to go back to can't be read.
            InvalidField: a text is too long.
        """
        check(rollback)

        def decide(history: list[PromotionRecord], champion: str) -> PromotionRecord:
            undone = undone_by_rollback(history)
            if undone is None:
                raise NoPromotionError(
                    f"model {shortened(model)} has no promotion on record to go back from; promote the version that "
                    "shall answer by its name"
                )
            return rollback_of(undone, rollback, len(history) + 1, champion, self.models.clock.now())

        return await self._change(model, decide)

    async def promotions(self, model: str) -> list[PromotionRecord]:
        """A model's promotions, oldest first.

        Raises:
            UnknownModelError: there is no such model.
        """
        await self.models.versions(model)
        return await self.models.store.promotions(model)

    async def _change(self, model: str, decide: Decide) -> ModelVersion:
        """Decide on the records as they are, again where another promotion was quicker."""
        store = self.models.store
        for _ in range(_ATTEMPTS):
            history = await store.promotions(model)  # read first: the champion is not older than they are
            champion = await store.champion(model)
            if champion is None:
                raise UnknownModelError(f"there is no model {shortened(model)}")
            record = decide(history, champion)
            promoted = await self.models.version(model, champion if record is None else record.version)
            if record is None or await store.promote(record):
                return replace(promoted, champion=True)
        raise RegistryError(f"model {shortened(model)} is promoted by many at once; try again")
