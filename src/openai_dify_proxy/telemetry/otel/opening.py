"""Decides whether OpenTelemetry is on, and opens its exporters, which read the standard ``OTEL_*`` variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from openai_dify_proxy.telemetry.otel.signals import OtelSignals

log = structlog.get_logger(__name__)

SERVICE = "openai-dify-proxy"


def wanted_signals(env: Mapping[str, str]) -> tuple[bool, bool]:
    """Return whether traces and metrics are on: an endpoint is set, and nothing switches them off."""
    if env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False, False
    return _is_on("TRACES", env), _is_on("METRICS", env)


def _is_on(signal: str, env: Mapping[str, str]) -> bool:
    endpoint = env.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or env.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return bool(endpoint) and env.get(f"OTEL_{signal}_EXPORTER", "otlp").strip().lower() == "otlp"


def open_otel(env: Mapping[str, str], *, remedy: str) -> OtelSignals | None:
    """Return the signals that are on, or None. ``env`` must be the process's environment, which the SDK reads.

    ``remedy`` is the command that installs the SDK.
    """
    traces, metrics = wanted_signals(env)
    if not (traces or metrics):
        return None
    try:
        from openai_dify_proxy.telemetry.otel.signals import OtelSignals  # noqa: PLC0415 - its library is an extra
    except ImportError:
        log.warning("otel_missing", remedy=remedy)
        return None
    from importlib.metadata import version  # noqa: PLC0415 - takes half a megabyte

    named = "OTEL_SERVICE_NAME" in env or "service.name=" in env.get("OTEL_RESOURCE_ATTRIBUTES", "")
    attributes = {"service.version": version(SERVICE)} | ({} if named else {"service.name": SERVICE})
    return OtelSignals(attributes, traces=traces, metrics=metrics)
