"""``GET /v1/usage``: what the caller has used; an admin key sees all callers."""

from __future__ import annotations

from datetime import date, timedelta

from starlette.requests import Request
from starlette.responses import Response

from openai_dify_proxy.api.bodies import json_response
from openai_dify_proxy.api.services import services_of
from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.limits.accounts import DEFAULT_DAYS, MAX_DAYS
from openai_dify_proxy.limits.reports import GROUPS, Group, read_groups
from openai_dify_proxy.translate.openai.parameter_errors import invalid_value


async def retrieve_usage(request: Request) -> Response:
    """Return the usage of a range of days, by key, app or day."""
    services = services_of(request)
    caller = services.authenticator.admit_spender(request)
    first, last = _range(request, services.usage.today())
    by = _groups(request) or ("key" if caller.admin else "app",)
    report = await services.usage.report(first, last, by, caller=None if caller.admin else caller.id)
    return json_response(report)


def _groups(request: Request) -> tuple[Group, ...]:
    value = request.query_params.get("by")
    if value is None:
        return ()
    groups = read_groups(value)
    if groups is None:
        raise invalid_value("by", value, GROUPS)
    return groups


def _range(request: Request, today: date) -> tuple[date, date]:
    last = _day(request, "to") or today
    first = _day(request, "from") or last - timedelta(days=DEFAULT_DAYS - 1)
    if first > last:
        raise InvalidRequest(f"'from' ({first}) is after 'to' ({last}). Swap them.", param="from")
    if (last - first).days >= MAX_DAYS:
        raise InvalidRequest(f"The range has more than {MAX_DAYS} days. Request it in parts.", param="from")
    return first, last


def _day(request: Request, name: str) -> date | None:
    value = request.query_params.get(name)
    if value is None:
        return None
    try:
        day = date.fromisoformat(value)
    except ValueError:
        day = None
    if day is None or day.year < 2000:
        raise InvalidRequest(f"'{name}' must be a day such as 2026-11-29 (UTC).", param=name)
    return day
