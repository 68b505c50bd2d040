from __future__ import annotations

import json
import stat
from datetime import datetime
from pathlib import Path

from structlog.testing import capture_logs

from openai_dify_proxy.keys.audit import AuditLog


def test_each_action_is_one_line_that_only_the_owner_can_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "audit.jsonl"
    log = AuditLog(str(path))
    assert log.problem() is None
    log.record("key_created", "root", key="a\nb")
    path.rename(path.with_suffix(".1"))
    log.record("key_revoked", "root", key="anna")
    lines = [json.loads(text) for text in (path.with_suffix(".1").read_text(), path.read_text())]
    assert [(line["action"], line["by"], line["key"]) for line in lines] == [
        ("key_created", "root", "a\nb"),
        ("key_revoked", "root", "anna"),
    ]
    assert all(datetime.fromisoformat(line["time"]).tzinfo is not None for line in lines)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_cannot_be_written_is_reported_and_fails_nothing(tmp_path: Path) -> None:
    log = AuditLog(str(tmp_path))
    assert log.problem() == f"{tmp_path}: Is a directory"
    with capture_logs() as logs:
        log.record("admin_call", "root")
    assert [entry["event"] for entry in logs] == ["audit_not_written"]


def test_off_writes_nothing(tmp_path: Path) -> None:
    log = AuditLog("off")
    assert log.problem() is None
    log.record("key_created", "root")
    assert list(tmp_path.iterdir()) == []
