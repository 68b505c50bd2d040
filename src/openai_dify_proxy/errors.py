"""All errors that the proxy returns.

::

    ProxyError
    ├── ClientError                 the request is at fault
    │   ├── InvalidRequest          400
    │   │   ├── ContextTooLong      400
    │   │   ├── ContentBlocked      400
    │   │   └── UploadLost          400
    │   ├── AuthenticationFailed    401
    │   ├── PermissionDenied        403
    │   │   └── ModelNotAllowed     403
    │   ├── NotFound                404
    │   │   ├── ModelNotFound       404
    │   │   ├── ConversationNotFound  404
    │   │   └── ResponseNotFound    404
    │   ├── MethodNotAllowed        405
    │   ├── NotAcceptable           406
    │   ├── ConversationBusy        409
    │   ├── FormClosed              412
    │   ├── BadHttp                 400
    │   ├── RequestTimeout          408
    │   ├── BodyTooLarge            413
    │   ├── TooLargeToStore         413
    │   ├── UrlTooLong              414
    │   ├── HeadTooLarge            431
    │   ├── UnsupportedMediaType    415
    │   ├── RangeNotSatisfiable     416
    │   └── RateLimited             429
    │       ├── QueueFull           429
    │       ├── TooManyTurns        429
    │       ├── TooManyWrongKeys    429
    │       └── QuotaExceeded       429
    ├── UpstreamError               Dify, Replicate or a service behind them is at fault
    │   ├── UpstreamMisconfigured   502  the operator is at fault
    │   │   └── ImagesOff           502
    │   ├── UpstreamFailed          502
    │   │   ├── StreamCut           502
    │   │   ├── UpstreamGarbled     502
    │   │   ├── ToolCallInvalid     502
    │   │   ├── ResponseFormatInvalid  502
    │   │   └── BadPicture          502
    │   ├── AppUnavailable          503
    │   ├── IpfsPending             503
    │   ├── FilePending             503
    │   ├── UpstreamUnreachable     503
    │   └── UpstreamTimeout         504
    └── ServerError                 the proxy is at fault
        ├── InternalError           500
        ├── PictureNotStored        500
        ├── FileNotStored           500
        ├── QueueTimeout            503
        ├── StateUnreachable        503
        ├── TooManyConnections      503
        ├── ServerBusy              503
        └── ShuttingDown            503

Status, type and code are data on the class. A message states the fault, its place and the remedy. It reaches the
client, so it never contains a key, a prompt or an answer; details for the operator go into ``log``.
"""

from __future__ import annotations

import re
from typing import ClassVar, Self

_KEYS = re.compile(
    r"(\b(?:app-|sk-|dataset-|xai-|pk-|gsk_|hf_|r8_|whsec_|AIza)|\bBearer\s+)[\w.~+/=*-]{6,}", re.IGNORECASE
)


SEE_LOG = "The operator finds the reason in the server's log, or with 'openai-dify-proxy check'."
"""The end of a message whose reason is for the operator only: the error's ``log``."""


def mask_keys(text: str) -> str:
    """Return ``text`` with everything that looks like a key replaced by its prefix and ``***``."""
    return _KEYS.sub(lambda match: match[1] + "***", text)


class Quoting(str):
    """A message that quotes an upstream, after ``statement``. The quotation may repeat a prompt or an answer."""

    __slots__ = ("statement",)

    statement: str

    def __new__(cls, statement: str, quotation: str, rest: str = "") -> Self:
        message = super().__new__(cls, f"{statement}: {quotation}{rest}")
        message.statement = statement
        return message


class ProxyError(Exception):
    """The root of the tree; clients see only these errors.

    ``message`` is the text for the client, ``param`` the field or header at fault, and ``code`` overrides the class's
    code, for instance with Dify's own. ``retry_after`` is in seconds. ``started`` means that the upstream may have
    started the work, so that a retry could be billed twice. ``log`` is for the operator only. ``reason`` is the message
    for the log: without what it quotes of an upstream.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str | None] = None
    retryable: ClassVar[bool] = False
    """Whether a retry of the same request may succeed."""
    before_turn: ClassVar[bool] = False
    """Whether the request waited for its turn and nothing was sent to Dify."""

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
        self.message = str(message)
        self.reason = f"{message.statement}." if isinstance(message, Quoting) else message
        self.param = param
        self.code = code if code is not None else self.default_code
        self.retry_after = retry_after
        self.started = started
        self.log = log

    @property
    def with_reason(self) -> str:
        """The message for the operator: with ``log`` instead of the reference to it."""
        return f"{self.message.removesuffix(SEE_LOG).strip()} {self.log or ''}".strip()


class ClientError(ProxyError):
    status = 400
    type = "invalid_request_error"


class InvalidRequest(ClientError):
    pass


class ContextTooLong(InvalidRequest):
    """Agents compact their history when they see this code."""

    default_code = "context_length_exceeded"


class ContentBlocked(InvalidRequest):
    """A safety filter of the model blocked the prompt or every picture."""

    default_code = "content_policy_violation"


class UploadLost(InvalidRequest):
    """Dify does not know an uploaded file of the request for its user."""


class AuthenticationFailed(ClientError):
    status = 401
    type = "authentication_error"
    default_code = "invalid_api_key"


class PermissionDenied(ClientError):
    status = 403
    type = "permission_error"


class ModelNotAllowed(PermissionDenied):
    """OpenAI's code for a model that the project of the key has no access to."""

    default_code = "model_not_found"


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


class NotAcceptable(ClientError):
    status = 406
    default_code = "not_acceptable"


class ConversationBusy(ClientError):
    """Another turn of the conversation is in progress."""

    status = 409
    default_code = "conversation_locked"
    retryable = True
    before_turn = True


class FormClosed(ClientError):
    """The form of a paused run was answered already, or has expired."""

    status = 412
    default_code = "human_input_form_submitted"


class BadHttp(ClientError):
    default_code = "invalid_http_request"


class RequestTimeout(ClientError):
    """The client sent its request too slowly."""

    status = 408
    default_code = "request_timeout"


class BodyTooLarge(ClientError):
    status = 413
    default_code = "request_too_large"


class TooLargeToStore(ClientError):
    """The request is there to store something, which is larger than an entry of the state may be."""

    status = 413
    default_code = "too_large_to_store"


class UrlTooLong(ClientError):
    status = 414
    default_code = "url_too_long"


class HeadTooLarge(ClientError):
    status = 431
    default_code = "headers_too_large"


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


class TooManyWrongKeys(RateLimited):
    """The address sent many wrong keys. A retry with the same key is pointless."""

    default_code = "too_many_wrong_keys"
    retryable = False


class QueueFull(RateLimited):
    """Too many turns wait for Dify. ``retry_after`` holds for the same process, and is an estimate otherwise."""

    default_code = "queue_full"
    before_turn = True


class TooManyTurns(RateLimited):
    """The client key runs as many turns at once as it may. ``retry_after`` is an estimate."""

    before_turn = True


class QuotaExceeded(RateLimited):
    type = "insufficient_quota"
    default_code = "insufficient_quota"
    retryable = False


class UpstreamError(ProxyError):
    status = 502
    type = "api_error"
    default_code = "upstream_error"


class UpstreamMisconfigured(UpstreamError):
    """Only the operator can fix it; the message reveals nothing about the server's configuration."""

    default_code = "upstream_misconfigured"


class UpstreamFailed(UpstreamError):
    pass


class StreamCut(UpstreamFailed):
    default_code = "upstream_incomplete"


class ImagesOff(UpstreamMisconfigured):
    """The message names the setting, since the person who tries a new server is often its operator."""

    default_code = "images_not_configured"

    def __init__(self) -> None:
        super().__init__(
            "Image generation is off: this server has no Replicate token. Its operator can set REPLICATE_API_TOKEN."
        )


class UpstreamGarbled(UpstreamFailed):
    """An answer from an upstream broke off or cannot be read; a retry may succeed."""


class ToolCallInvalid(UpstreamFailed):
    """The model wrote no call of a client's tool, or an invalid one, although a valid one is required."""

    default_code = "tool_call_invalid"


class ResponseFormatInvalid(UpstreamFailed):
    """The model's answer does not have the format that the client requires."""

    default_code = "response_format_invalid"


class BadPicture(UpstreamFailed):
    """The output of a model is not a picture, or not one that is safe to store."""

    default_code = "bad_picture"


class AppUnavailable(UpstreamError):
    """Dify answers, but the app is not published, has no model, or has another mode."""

    status = 503
    default_code = "app_unavailable"


class IpfsPending(UpstreamError):
    """The picture is stored, but not on IPFS yet."""

    status = 503
    default_code = "ipfs_pending"


class FilePending(UpstreamError):
    """The file of an app is still being fetched from Dify."""

    status = 503
    default_code = "file_pending"
    retryable = True


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
    """The picture cannot be stored: for instance, the disk is full or the object store does not answer."""

    default_code = "picture_not_stored"


class FileNotStored(ServerError):
    """A file of an app cannot be stored or read: for instance, the disk is full or the object store does not answer."""

    default_code = "file_not_stored"


class QueueTimeout(ServerError):
    """The turn waited too long for Dify; it was not sent."""

    status = 503
    default_code = "queue_timeout"
    retryable = True
    before_turn = True


class StateUnreachable(ServerError):
    """The request requires the state, which does not answer."""

    status = 503
    default_code = "state_unavailable"
    retryable = True


class TooManyConnections(ServerError):
    status = 503
    default_code = "too_many_connections"
    retryable = True


class ServerBusy(ServerError):
    """The memory for bodies is taken, or too many new keys wait for their check."""

    status = 503
    default_code = "server_busy"
    retryable = True


class ShuttingDown(ServerError):
    status = 503
    default_code = "shutting_down"
    retryable = True
