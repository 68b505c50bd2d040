"""What all handlers share, put together once at the start."""

from __future__ import annotations

import time
from secrets import token_hex

import msgspec
from msgspec import Struct
from starlette.requests import Request

from openai_dify_proxy.api.requests import Gate
from openai_dify_proxy.api.responses import Pulse
from openai_dify_proxy.translate.openai_answers import AnswerHead
from openai_dify_proxy.translate.turn_request import TurnRequest
from openai_dify_proxy.turns.apps import Apps
from openai_dify_proxy.turns.profiles import Profiles
from openai_dify_proxy.turns.reach import Reach
from openai_dify_proxy.turns.service import Turns

CONVERSATION_HEADER = "x-dify-conversation-id"
END_USER_HEADER = "x-openwebui-user-id"


class Proxy(Struct, frozen=True):
    gate: Gate
    apps: Apps
    profiles: Profiles
    turns: Turns
    reach: Reach
    pulse: Pulse
    started: int
    image_models: tuple[str, ...] = ()

    def head(self, kind: str, model: str) -> AnswerHead:
        """The id, time and model of a new answer; ``kind`` is the id's prefix."""
        return AnswerHead(f"{kind}-{token_hex(16)}", int(time.time()), model)

    def with_headers(self, turn: TurnRequest, request: Request) -> TurnRequest:
        """Headers that name the conversation and the end user win over the body."""
        conversation_id = request.headers.get(CONVERSATION_HEADER)
        end_user = request.headers.get(END_USER_HEADER)
        if not conversation_id and not end_user:
            return turn
        return msgspec.structs.replace(
            turn,
            conversation_id=conversation_id or turn.conversation_id,
            end_user=end_user or turn.end_user,
        )


def proxy_of(request: Request) -> Proxy:
    proxy: Proxy = request.app.state.proxy
    return proxy
