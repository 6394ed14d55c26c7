"""Contexts of evaluations, read within the limits of a prediction's row."""

from fastapi import Request

from contender.contracts.ofrep import TARGETING_KEY, EvaluationRequest
from contender.contracts.values import Scalar
from services.ab_router.errors import InvalidContextError, TargetingKeyMissingError, UnreadableEvaluationError
from services.ab_router.requests import scalar_fault, text_fault
from services.ab_router.settings import RouterSettings
from shared.bodies import read_body
from shared.errors import InvalidField, shortened
from shared.problems import BadRequest


async def read_context(request: Request) -> tuple[str, dict[str, Scalar]]:
    """The unit of an evaluation, and the values that targeting rules look at.

    Raises:
        UnreadableEvaluationError: the body is not JSON.
        InvalidContextError: the context is missing, mistyped or out of range.
        TargetingKeyMissingError: it has no targeting key.
        TooLarge, UnsupportedMediaType: the body is too long, or not sent as JSON.
    """
    settings: RouterSettings = request.state.settings
    try:
        body = await read_body(request, EvaluationRequest, settings.body_limit_bytes)
    except BadRequest as error:
        raise UnreadableEvaluationError(error.detail) from error
    except InvalidField as error:
        raise InvalidContextError(error.detail, error.errors) from error
    unit = _unit(body.context.pop(TARGETING_KEY, ""), settings.text_limit)
    context = {key: value for key, value in body.context.items() if not isinstance(value, list | dict)}
    if len(context) > settings.key_limit or any(len(key) > settings.text_limit for key in context):
        message = f"has more than {settings.key_limit} keys, or one longer than {settings.text_limit} characters"
        raise InvalidContextError.at("context", message)
    for key, value in context.items():
        if fault := scalar_fault(value, settings.text_limit):
            raise InvalidContextError.at(f"context.{shortened(key)}", fault)
    return unit, context


def _unit(key: object, text_limit: int) -> str:
    if key in ("", None):
        raise TargetingKeyMissingError(f"context has no {TARGETING_KEY}: send the unit, such as a user's id, as text")
    if not isinstance(key, str):
        raise InvalidContextError.at(f"context.{TARGETING_KEY}", "is not a text")
    if fault := text_fault(key, text_limit):
        raise InvalidContextError.at(f"context.{TARGETING_KEY}", fault)
    return key
