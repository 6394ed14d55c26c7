"""The champions of models, as experiments change them and note them."""

from contender.contracts.experiments import ExperimentRevision
from contender.contracts.inference_service import Promotion
from services.ab_router.catalog import Catalog
from services.ab_router.clients import CallError, QuestionRefusedError
from services.ab_router.domain.overlaps import is_in_force
from services.ab_router.errors import ExperimentStateError
from services.ab_router.revisions import Revisions
from shared.errors import Unavailable


async def promote(catalog: Catalog, model: str, promotion: Promotion) -> None:
    """Make a version the champion, unless it is already: so a promotion may be repeated.

    Raises:
        ExperimentStateError: the inference service refuses it.
        Unavailable: the inference service does not answer.
    """
    is_read = await catalog.reread()
    known = catalog.known(model)
    if is_read and known is not None and known.champion.version == promotion.version:
        return
    try:
        await catalog.promote(model, promotion)
    except QuestionRefusedError as error:
        raise ExperimentStateError(
            f"the inference service refuses to promote version {promotion.version} of model {model}: see whether it is "
            f"registered still, by GET /v1/models/{model}"
        ) from error
    except CallError as error:
        raise Unavailable("the inference service does not answer; repeat the call, which is safe") from error


def promoted(catalog: Catalog, revisions: Revisions) -> list[tuple[ExperimentRevision, str]]:
    """Experiments in force with their model's champion, where it is another than they note."""
    in_force = [experiment for experiment in revisions.all() if is_in_force(experiment)]
    models = [(experiment, catalog.known(experiment.model)) for experiment in in_force]
    return [
        (experiment, model.champion.version)
        for experiment, model in models
        if model is not None and model.champion.version != experiment.model_champion
    ]
