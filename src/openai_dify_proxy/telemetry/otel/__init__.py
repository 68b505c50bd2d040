"""Traces and metrics for OpenTelemetry, with the extra ``otel``. Off unless the environment names an endpoint."""
