"""The parameters that several routes have."""

from __future__ import annotations

from openai_dify_proxy.api.openapi.operations import Parameter, Schema
from openai_dify_proxy.translate.openai.conversation_items import DEFAULT_ITEMS, MAX_ITEMS, ORDERS
from openai_dify_proxy.translate.replicate.headers import HEADERS, ImageHeader

END_USER = Parameter(
    "X-OpenWebUI-User-Id", "header", "The end user. It takes precedence over `safety_identifier` and `user`."
)

TURN_HEADERS = (
    Parameter("X-Dify-Conversation-Id", "header", "Continues this Dify conversation."),
    END_USER,
    Parameter("X-OpenWebUI-Chat-Id", "header", "The client's chat, by which a rewritten history is recognized."),
    Parameter(
        "X-Context-Mode",
        "header",
        "`stateless` sends the whole history as a transcript, and uses no conversation in Dify.",
        {"type": "string", "enum": ["auto", "stateless"], "default": "auto"},
    ),
)


def _header(header: ImageHeader) -> Parameter:
    """Return an image header. Its number may be written in any form that the parser accepts, so it stays a string."""
    return Parameter(header.name, "header", f"{header.takes[0].upper()}{header.takes[1:]}.", {"type": "string"})


IMAGE_HEADERS = tuple(map(_header, HEADERS))


def page_parameters(most: int = MAX_ITEMS) -> tuple[Parameter, ...]:
    """Return the query parameters of a list whose pages have at most ``most`` items."""
    size: Schema = {"type": "integer", "minimum": 1, "maximum": most, "default": DEFAULT_ITEMS}
    order: Schema = {"type": "string", "enum": list(ORDERS), "default": "desc"}
    return (
        Parameter("after", "query", "The id of the last item of the previous page."),
        Parameter("limit", "query", "The number of items of a page.", size),
        Parameter("order", "query", "`desc` lists the newest item first.", order),
    )
