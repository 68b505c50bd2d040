"""A worker process: ``python -m openai_dify_proxy.cli.worker CHANNEL LISTENER…``, started by the supervisor.

The arguments are inherited file descriptors. Libraries import some packages for terminals and command lines only, which
take 5 MB. They stay out of the worker.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType


def _import_without(module: str, *packages: str) -> None:
    """Import a module that uses ``packages`` only if they are installed, as if they were not."""
    sys.modules.update(dict.fromkeys(packages))  # type: ignore[arg-type] # None is documented: their import fails
    import_module(module)
    for package in packages:
        del sys.modules[package]


def _skip_init(name: str) -> ModuleType:
    """Return a package without running its ``__init__``, so that only those of its modules are loaded that are used."""
    spec = find_spec(name)
    assert spec is not None
    package = sys.modules[name] = module_from_spec(spec)
    return package


_import_without("structlog", "rich", "greenlet")
_skip_init("prometheus_client")  # imports its HTTP servers and clients
uvicorn = _skip_init("uvicorn")  # imports its command line, click and multiprocessing
vars(uvicorn)["Config"] = import_module("uvicorn.config").Config  # other modules of uvicorn import it from there

from openai_dify_proxy.cli.worker.process import main  # noqa: E402 - comes after the lines above

if __name__ == "__main__":
    main()
