"""Every error that the proxy answers with.

::

    ProxyError
    ├── ClientError                 the request is at fault
    │   ├── InvalidRequest          400
    │   │   ├── ContextTooLong      400
    │   │   └── ContentRefused      400
    │   ├── AuthenticationFailed    401
    │   ├── PermissionDenied        403
    │   ├── NotFound                404
    │   │   ├── ModelNotFound       404
    │   │   ├── ConversationNotFound  404
    │   │   └── ResponseNotFound    404
    │   ├── MethodNotAllowed        405
    │   ├── ConversationBusy        409
    │   ├── BodyTooLarge            413
    │   ├── UnsupportedMediaType    415
    │   ├── RangeNotSatisfiable     416
    │   └── RateLimited             429
    │       └── QuotaExceeded       429
    ├── UpstreamError               Dify, or what stands behind it, is at fault
    │   ├── UpstreamMisconfigured   502  a mistake of the operator's
    │   │   └── ImagesOff           502
    │   ├── UpstreamFailed          502
    │   │   ├── StreamCut           502
    │   │   ├── UpstreamGarbled     502
    │   │   └── BadPicture          502
    │   ├── AppUnavailable          503
    │   ├── IpfsPending             503
    │   ├── UpstreamUnreachable     503
    │   └── UpstreamTimeout         504
    └── ServerError                 the proxy is at fault
        ├── InternalError           500
        ├── PictureNotStored          500
        ├── StateUnreachable        503
        └── ShuttingDown            503

Status, type and code are data on the class; a message says what to do. Messages reach the client, so they
never hold a key, a prompt or an answer: what only the operator may read goes into ``log``.
"""

from __future__ import annotations

import re
from typing import ClassVar

_KEYS = re.compile(
    r"(\b(?:app-|sk-|dataset-|xai-|pk-|gsk_|hf_|r8_|whsec_|AIza)|\bBearer\s+)[\w.~+/=*-]{6,}", re.IGNORECASE
)


def mask_keys(text: str) -> str:
    """``text`` with all that looks like a key cut down to the part that tells its kind."""
    return _KEYS.sub(lambda match: match[1] + "***", text)


class ProxyError(Exception):
    """The root of the tree; only these are shown to clients.

    ``message`` is the text for the client, ``param`` the field or header at fault, ``code`` overrides the class's
    code (Dify's own code is kept there), ``retry_after`` is in seconds, ``started`` tells that the upstream may
    have begun the work, so that sending the request again could be billed twice, and ``log`` is for the
    operator's eyes only.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str | None] = None
    retryable: ClassVar[bool] = False
    """Whether the same request may succeed a moment later; all else is not worth sending again."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        started: bool = False,
        log: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code if code is not None else self.default_code
        self.retry_after = retry_after
        self.started = started
        self.log = log


class ClientError(ProxyError):
    status = 400
    type = "invalid_request_error"


class InvalidRequest(ClientError):
    pass


class ContextTooLong(InvalidRequest):
    """Agents compact their history when they see this code."""

    default_code = "context_length_exceeded"


class ContentRefused(InvalidRequest):
    """A safety filter of the model's stopped the prompt or every picture."""

    default_code = "content_policy_violation"


class AuthenticationFailed(ClientError):
    status = 401
    type = "authentication_error"
    default_code = "invalid_api_key"


class PermissionDenied(ClientError):
    status = 403
    type = "permission_error"


class NotFound(ClientError):
    status = 404
    default_code = "not_found"


class ModelNotFound(NotFound):
    default_code = "model_not_found"


class ConversationNotFound(NotFound):
    default_code = "conversation_not_found"


class ResponseNotFound(NotFound):
    default_code = "response_not_found"


class MethodNotAllowed(ClientError):
    status = 405
    default_code = "method_not_allowed"


class ConversationBusy(ClientError):
    """Another turn of the conversation is under way."""

    status = 409
    default_code = "conversation_locked"
    retryable = True


class BodyTooLarge(ClientError):
    status = 413
    default_code = "request_too_large"


class UnsupportedMediaType(ClientError):
    status = 415
    default_code = "unsupported_media_type"


class RangeNotSatisfiable(ClientError):
    status = 416
    default_code = "range_not_satisfiable"


class RateLimited(ClientError):
    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"
    retryable = True


class QuotaExceeded(RateLimited):
    type = "insufficient_quota"
    default_code = "insufficient_quota"
    retryable = False


class UpstreamError(ProxyError):
    status = 502
    type = "api_error"
    default_code = "upstream_error"


class UpstreamMisconfigured(UpstreamError):
    """The client can do nothing about it, and learns nothing of the server's configuration from it."""

    default_code = "upstream_misconfigured"


class UpstreamFailed(UpstreamError):
    pass


class StreamCut(UpstreamFailed):
    default_code = "upstream_incomplete"


class ImagesOff(UpstreamMisconfigured):
    """The message tells what to set: whoever tries a server out is often its operator."""

    default_code = "images_not_configured"

    def __init__(self) -> None:
        super().__init__(
            "This server makes no pictures: it has no Replicate token. Its operator can set REPLICATE_API_TOKEN."
        )


class UpstreamGarbled(UpstreamFailed):
    """An answer that broke off, failed or cannot be read, of something that may well answer when asked again."""


class BadPicture(UpstreamFailed):
    """What a model gave out is no picture, or none that is safe to keep."""

    default_code = "bad_picture"


class AppUnavailable(UpstreamError):
    """Dify is there, but the app is not published, has no model, or is of another mode."""

    status = 503
    default_code = "app_unavailable"


class IpfsPending(UpstreamError):
    """The picture is made and kept, and not yet on IPFS."""

    status = 503
    default_code = "ipfs_pending"


class UpstreamUnreachable(UpstreamError):
    status = 503
    default_code = "upstream_unreachable"
    retryable = True


class UpstreamTimeout(UpstreamError):
    status = 504
    default_code = "upstream_timeout"
    retryable = True


class ServerError(ProxyError):
    pass


class InternalError(ServerError):
    default_code = "internal_error"


class PictureNotStored(ServerError):
    """The disk is full, say, or the object store does not answer."""

    default_code = "picture_not_kept"


class StateUnreachable(ServerError):
    """What is asked for is kept in a place that does not answer."""

    status = 503
    default_code = "state_unavailable"
    retryable = True


class ShuttingDown(ServerError):
    status = 503
    default_code = "shutting_down"
    retryable = True
