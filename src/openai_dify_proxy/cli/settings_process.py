"""The process that loads the settings for a reload: ``python -m openai_dify_proxy.cli.settings_process SOURCES …``.

It prints what ``read_loaded`` reads, logs invalid settings, and exits. Its other arguments are the level and the format
of the log.
"""

from __future__ import annotations

import sys

import structlog

from openai_dify_proxy.cli.demo import needs_demo
from openai_dify_proxy.cli.serve_settings import Sources, check_settings, loaded
from openai_dify_proxy.cli.supervision.loaded import write_problems
from openai_dify_proxy.settings import Settings, SettingsError
from openai_dify_proxy.telemetry import configure_logging

log = structlog.get_logger(__name__)


def main() -> None:
    """Load and check the settings, and print them for the supervisor."""
    source_text, level, log_format = sys.argv[1:]
    configure_logging(level, log_format)  # type: ignore[arg-type]  # of validated settings
    sources = Sources.from_json(source_text)
    try:
        settings = sources.load()
        _check(settings)
    except SettingsError as error:
        for problem in error.problems:
            log.error("reload_failed", reason=problem)  # noqa: TRY400 - no bug, so no traceback
        write_problems(error.problems, sys.stdout.buffer)
        return
    configure_logging(settings.log_level, settings.log_format)
    if changed := sources.restart_only(settings):
        log.warning("restart_required", settings=", ".join(changed))
    loaded(settings).write(sys.stdout.buffer)


def _check(settings: Settings) -> None:
    """Raise SettingsError if a server cannot change to these settings."""
    check_settings(settings)
    if needs_demo(settings):
        raise SettingsError(["The demo has no settings to reload. Set DIFY_API_URL, or restart the server."])


if __name__ == "__main__":
    main()
