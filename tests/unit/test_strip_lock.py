"""The lock names no host and no folder of one machine."""

from pathlib import Path

from deploy.strip_lock import strip

ROOT = Path(__file__).resolve().parents[2]


def test_a_compiled_lock_loses_its_own_folder_and_index_options():
    own = "# WARNING: no hash\ncontender-ml @ file:///x\n    # via x\n"
    compiled = "--find-links /somewhere\n\nhttpx==1 \\\n    --hash=sha256:aa\n" + own
    assert strip(compiled) == "httpx==1 \\\n    --hash=sha256:aa\n"


def test_the_lock_names_no_host():
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    assert "\n--" not in lock
