"""The conversation, the chat and the end user that a request's headers name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from openai_dify_proxy.api.headers import single_values
from openai_dify_proxy.keys.user_tokens import end_user_of_token
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.translate.openai.chat_request import UNNAMED
from openai_dify_proxy.translate.openai.parameter_errors import invalid_value
from openai_dify_proxy.translate.turn_request import RequestIdentity
from openai_dify_proxy.turns.callers import Caller

_CONVERSATION = b"x-dify-conversation-id"
_CONTEXT_MODE = b"x-context-mode"


class IdentityReader:
    """Reads identities by the header names of the settings. ``now`` returns seconds since the epoch."""

    def __init__(self, settings: Settings, now: Callable[[], float] = time.time) -> None:
        secret = settings.openwebui_jwt_secret
        self._secret = None if secret is None else secret.get_secret_value().encode()
        self._now = now
        token = settings.openwebui_jwt_header.encode()
        users = (token,) if self._secret is not None else settings.end_user_headers
        self._users = tuple(name if isinstance(name, bytes) else name.encode() for name in users)
        self._chats = tuple(name.encode() for name in settings.chat_id_headers)
        self.names = frozenset({_CONVERSATION, _CONTEXT_MODE, *self._users, *self._chats})
        """The headers that identify something, in lower case."""

    def read(self, headers: Iterable[tuple[bytes, bytes]], caller: Caller) -> RequestIdentity:
        """Return the identity in the headers of a request; the end user of a client key overrides that of the headers.

        Raises InvalidRequest for two different values of one header, and AuthenticationFailed for a token that is
        not valid.
        """
        named = single_values(headers, self.names.__contains__)
        if not named and caller.end_user is None:
            return UNNAMED
        end_user = next((named[name] for name in self._users if name in named), None)
        if end_user is not None and self._secret is not None:
            end_user = end_user_of_token(end_user, self._secret, self._now())
        return RequestIdentity(
            conversation_id=named.get(_CONVERSATION),
            end_user=caller.end_user or end_user,
            chat_id=next((named[name] for name in self._chats if name in named), None),
            stateless=_is_stateless(named.get(_CONTEXT_MODE, "auto")),
        )


def _is_stateless(mode: str) -> bool:
    if mode not in ("auto", "stateless"):
        raise invalid_value("X-Context-Mode", mode, ("auto", "stateless"))
    return mode == "stateless"
