"""Errors in the format of Replicate's API."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import HTMLResponse, Response

from openai_dify_proxy_demo.replicate.script import Throttle

BAD_GATEWAY_PAGE = (
    "<html>\n<head><title>{status}</title></head>\n<body><center><h1>{status}</h1></center></body>\n</html>\n"
)
"""The error page of a load balancer whose backend does not respond."""


@dataclass(eq=False)
class ProblemError(Exception):
    """Raised to respond with an error."""

    status: int
    detail: str
    title: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> Response:
        body = {"title": self.title} if self.title else {}
        content = json.dumps({**body, "detail": self.detail, "status": self.status, **self.extra}, ensure_ascii=False)
        return Response(content + "\n", self.status, dict(self.headers), "application/problem+json")


@dataclass(frozen=True)
class InvalidField:
    """One invalid field; `field` is empty for the body itself."""

    type: str
    field: str
    description: str

    def line(self) -> str:
        return f"- {self.field}: {self.description}\n" if self.field else f"- {self.description}\n"


def unauthenticated(authorization: str | None) -> ProblemError:
    token = "a valid authentication token" if authorization else "an authentication token"
    return ProblemError(401, f"You did not pass {token}", "Unauthenticated")


def not_found() -> ProblemError:
    return ProblemError(404, "The requested resource could not be found.", "Not Found")


def invalid_version() -> ProblemError:
    return ProblemError(
        422,
        "The specified version does not exist (or perhaps you don't have permission to use it?)",
        "Invalid version or not permitted",
    )


def invalid_input(fields: list[InvalidField]) -> ProblemError:
    return ProblemError(
        422,
        "".join(invalid.line() for invalid in fields),
        "Input validation failed",
        {
            "invalid_fields": [
                {"type": invalid.type, "field": invalid.field, "description": invalid.description} for invalid in fields
            ]
        },
    )


def insufficient_credit() -> ProblemError:
    return ProblemError(
        402,
        "You have insufficient credit to run this model. Go to https://replicate.com/account/billing#billing to "
        "purchase credit. Once you purchase credit, please wait a few minutes before trying again.",
        "Insufficient credit",
    )


def throttled(throttle: Throttle) -> ProblemError:
    """Return a 429 with the delay in the header, the body, `ratelimit-reset` or the text, or without one."""
    delay = throttle.seconds
    text = "Request was throttled."
    if throttle.how != "none":
        text += (
            " Your rate limit for creating predictions is reduced to 6 requests per minute with a burst of 1 requests"
            " while you have less than $5.0 in credit."
        )
    if throttle.how == "text":
        text += f" Your rate limit resets in ~{delay}s."
    return ProblemError(
        429,
        text,
        extra={"retry_after": delay} if throttle.how == "body" else {},
        headers={
            "header": {"Retry-After": str(delay)},
            "reset": {"ratelimit-remaining": "0", "ratelimit-reset": str(delay)},
        }.get(throttle.how, {}),
    )


def crashed(status: int) -> Response:
    """Return an error of the API (500) or of the load balancer (any other status)."""
    if status == 500:
        return ProblemError(500, "Internal server error", "Internal Server Error").response()
    return HTMLResponse(BAD_GATEWAY_PAGE.format(status=status), status)
