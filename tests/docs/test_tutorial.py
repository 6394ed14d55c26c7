"""The tutorial's blocks run as they stand, and end in a verdict for the better version."""

import pytest

from tests.docs.blocks import run_blocks
from tests.docs.conftest import Documented

LONGEST_S = 240


@pytest.mark.timeout(600)  # the start of the stack and a minute until rows mature count, too
def test_the_tutorial_leads_from_a_notebook_to_a_verdict(documented: Documented):
    ended = run_blocks(documented.remaining, documented.folder, documented.environment, LONGEST_S)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "challenger is better than champion in log loss" in ended.stdout
    assert ended.stdout.splitlines()[-1] == str(["with the customer's habits"])
