"""The command that an error names where an extra is missing."""

from __future__ import annotations

from pathlib import Path

from openai_dify_proxy.settings.extras import install_command


def test_a_checkout_has_a_script() -> None:
    assert install_command("redis") == "scripts/setup --extra redis"


def test_elsewhere_it_is_pip(tmp_path: Path) -> None:
    assert install_command("redis", tmp_path) == "pip install 'openai-dify-proxy[redis]'"
    (tmp_path / "pyproject.toml").touch()
    assert install_command("s3", tmp_path) == "pip install 'openai-dify-proxy[s3]'"
