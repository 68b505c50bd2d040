"""A pytest plugin that measures coverage only while the tests of one folder run.

On Python 3.11 the measurement doubles the time of a test. What is imported during the collection is measured as well.
New threads are not: one that starts while the measurement of the main thread begins or ends may fail on Python 3.11.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest


class MeasuredTests:
    """A pytest plugin for one session with ``--cov``. ``folder`` is an absolute path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        controller: Any = item.config.pluginmanager.getplugin("_cov").cov_controller
        measured = item.path.is_relative_to(self._folder)
        if measured != controller.started:
            (controller.resume if measured else controller.pause)()
            threading.settrace(None)
        return (yield)
