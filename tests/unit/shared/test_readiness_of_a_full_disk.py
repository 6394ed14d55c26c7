"""Every service that has a journal is unready while the journal's disk takes nothing."""

from types import SimpleNamespace

import pytest

from services.feature_service import main as feature_service
from services.feedback_service import main as feedback_service

FAULT = "the journal can't write to its disk: No space left on device"


async def answers(*_: object) -> bool:
    return True


@pytest.mark.parametrize("fault", ["", FAULT])
async def test_the_disks_own_words_are_a_reason(fault: str):
    expected = [fault] if fault else []
    journal = SimpleNamespace(unready_reasons=expected)
    state = {
        "journal": journal,
        "snapshots": SimpleNamespace(ping=answers),
        "store": SimpleNamespace(is_ready=answers),
        "intake": SimpleNamespace(journal=journal, definitions=SimpleNamespace(fault="")),
    }
    assert await feedback_service.unready(state) == expected
    assert await feature_service._ready(state) == expected
