"""Maps Dify's failures to the proxy's errors.

Dify's codes are coarse: all provider failures arrive as 400 ``completion_request_error``, concurrency limits as 400
``invalid_param``, workflow failures as a sentence in an event. So an error is mapped by its code first and by its
message second.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from openai_dify_proxy.errors import (
    SEE_LOG,
    AppUnavailable,
    AuthenticationFailed,
    BodyTooLarge,
    ContextTooLong,
    ConversationNotFound,
    FormClosed,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    ProxyError,
    QuotaExceeded,
    RateLimited,
    UnsupportedMediaType,
    UploadLost,
    UpstreamFailed,
    UpstreamMisconfigured,
    UpstreamTimeout,
    UpstreamUnreachable,
    mask_keys,
)
from openai_dify_proxy.translate.sentences import with_detail
from openai_dify_proxy.wire.dify import ERROR_BODY
from openai_dify_proxy.wire.reading import UNREADABLE

CONCURRENCY_RETRY_AFTER = 2.0
"""Seconds; Dify names no delay, and frees a slot as soon as a stream ends."""

WRONG_ROUTE_CODES = frozenset({"not_chat_app", "not_completion_app", "not_workflow_app", "app_unavailable"})
"""Dify's codes for a request to the route of another app mode."""

NO_API = f"This server's Dify URL does not lead to a Dify API. {SEE_LOG}"

MAX_MESSAGE = 1000
"""Characters of Dify's message that are passed on; some messages repeat the request, files included."""

_KEY_REJECTED = "Dify rejected the app's key"

_WERKZEUG_HINT = re.compile(r"\s*You have requested this URI \[.*", re.DOTALL)
_PYDANTIC_HINT = re.compile(r"\s*For further information visit https://errors\.pydantic\.dev/\S+")
_REQUIRED_INPUT = re.compile(r"^(?:Run failed: )?(?P<name>\S+) is required in input form")
_BAD_INPUT = re.compile(r"^(?:Run failed: )?(?:\(type '[^']*'\) )?(?P<name>\S+) in input form must\b")
_LOST_FILE = re.compile(r"^(Run failed: )?Invalid upload file$")
_BAD_FILE = re.compile(r"^(Run failed: )?(Invalid upload file|File validation failed|Number of \w* ?files exceeds)")
_CONTEXT = re.compile(
    r"context.{0,20}(length|window)|maximum context|prompt is too long|too many (input )?tokens", re.IGNORECASE
)
_RATE = re.compile(r"rate.?limit|too many requests|\b429\b|overloaded_error", re.IGNORECASE)
_QUOTA = re.compile(r"insufficient_quota|exceeded your current quota|quota exceeded", re.IGNORECASE)
_PROVIDER_AUTH = re.compile(
    r"incorrect api key|invalid api key|invalid_api_key|invalid x-api-key|incorrect model credentials|unauthorized"
    r"|InvokeAuthorizationError|authentication.?error|^\[[^\]]{1,100}\].{0,200}\bauthentication\b",
    re.IGNORECASE,
)
"""Dify's own text is "[provider] Incorrect model credentials provided"; the others are those of providers."""
_NO_PROVIDER = re.compile(r"^(Run failed: )?(Provider|Model) \S+ ((does )?not exist|credentials is not initialized)")
_CONCURRENCY = re.compile(r"^(Run failed: )?Too many requests\b.{0,100}\bmaximum concurrent requests\b")
"""Dify's own limit. Providers use the first words, too."""
_NO_SPEECH_TO_TEXT = re.compile(r"^Speech to text is (not enabled|disabled)", re.IGNORECASE)
_NO_TEXT_TO_SPEECH = re.compile(r"^(TTS|Text to speech) is (not enabled|disabled)", re.IGNORECASE)


def translate_rejection(
    status: int, content_type: str, body: bytes, *, url: str, setting: str, own_key: bool, location: str | None = None
) -> ProxyError:
    """Return the error for an answer with a status other than 2xx, of Dify or of a proxy in front of it.

    ``url`` is the app's, from ``setting``. ``own_key`` means that the Dify key is the server's, so the client is not
    to blame for it. ``location`` is the target of a redirect, which is not followed: that would turn a POST into a GET
    or send the key to another host.
    """
    if 300 <= status < 400:
        return UpstreamMisconfigured(
            NO_API,
            log=f"The Dify URL '{url}' redirects to {location}. Correct {setting}; often https:// replaces http://.",
        )
    try:
        error = ERROR_BODY.decode(body)
    except UNREADABLE:
        return _translate_front_proxy(status, content_type, url, setting)
    if not isinstance(error.code, str):  # all of Dify's errors have a code
        return _translate_front_proxy(status, content_type, url, setting)
    return translate_error(error.code, status, error.message or "", own_key=own_key)


def translate_error(code: str | None, status: int, message: str, *, own_key: bool, started: bool = False) -> ProxyError:
    """Map a ``{"code", "message", "status"}`` body or an ``error`` event by its code, then message, then status."""
    message = clean(message)
    if code == "too_many_requests" or message.startswith("Too many requests") or _CONCURRENCY.match(message):
        return _concurrency_limit()
    if status == 401 or code == "unauthorized":
        return _translate_auth(message, own_key)
    rule = _BY_CODE.get(code or "")
    if rule is not None:
        return rule(message, code, started)
    return _translate_status(code, status, message, started)


def translate_failure(message: str) -> ProxyError:
    """Map the message of a failed run (``workflow_finished.data.error``), which has no code."""
    message = clean(message)
    return _concurrency_limit() if _CONCURRENCY.match(message) else _translate_message(message, None, True)


def clean(message: str) -> str:
    """Mask keys in a message of Dify, remove the hints of its libraries, and limit its length."""
    text = mask_keys(_PYDANTIC_HINT.sub("", _WERKZEUG_HINT.sub("", message))).strip()
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}…"


def _translate_auth(message: str, own_key: bool) -> ProxyError:
    if own_key:
        return UpstreamMisconfigured(
            f"Dify rejected the key that this server has for the model. {SEE_LOG}",
            log=f"{with_detail(_KEY_REJECTED, message)} Set a valid key for this app; it starts with app-.",
        )
    rejected = with_detail("Dify rejected the Dify key of this request", message)
    return AuthenticationFailed(f"{rejected} Send a valid key of the app; it starts with app-.")


def _translate_message(message: str, code: str | None, started: bool) -> ProxyError:
    """Map a message of a provider or of a run."""
    if named := _REQUIRED_INPUT.match(message) or _BAD_INPUT.match(message):
        return InvalidRequest(
            with_detail("Dify rejected an input of the app", message),
            param=f"inputs.{named['name']}",
            code=code,
            started=started,
        )
    for pattern, rule in _BY_MESSAGE:
        if pattern.search(message):
            return rule(message, code, started)
    return UpstreamFailed(
        with_detail("The run failed in Dify", message or "no reason given"), code=code, started=started
    )


def _translate_model_failure(message: str, code: str | None, _started: bool) -> ProxyError:
    """Map a failure of the model, which was called even if the error came before the stream: a retry may cost again."""
    return _translate_message(message, code, True)


def _concurrency_limit() -> RateLimited:
    """Return the error for Dify's limit of concurrent requests: nothing ran, so a retry costs nothing twice."""
    return RateLimited(
        "The Dify app has reached its limit of concurrent requests. Try again in a moment.",
        retry_after=CONCURRENCY_RETRY_AFTER,
    )


def _context_too_long(message: str, _code: str | None, started: bool) -> ProxyError:
    return ContextTooLong(
        with_detail("The conversation exceeds the context length of the app's model", message), started=started
    )


def _lost_file(message: str, code: str | None, started: bool) -> ProxyError:
    text = with_detail("Dify does not know an uploaded file of this request for its user", message)
    return UploadLost(text, code=code, started=started)


def _bad_file(message: str, code: str | None, started: bool) -> ProxyError:
    return InvalidRequest(with_detail("Dify rejected a file", message), code=code, started=started)


def _out_of_quota(message: str, _code: str | None, started: bool) -> ProxyError:
    return QuotaExceeded(with_detail("The model provider behind Dify is out of quota", message), started=started)


def _provider_limit(message: str, _code: str | None, started: bool) -> ProxyError:
    return RateLimited(with_detail("The model provider behind Dify limits requests", message), started=started)


def _rate_limit_error(message: str, code: str | None, started: bool) -> ProxyError:
    """Map a rate limit: in a stream it is the model provider's; before it, the run quota of a Dify Cloud plan."""
    return _provider_limit(message, code, True) if started else _out_of_quota(message, code, started)


def _provider_auth(message: str, _code: str | None, started: bool) -> ProxyError:
    return UpstreamMisconfigured(
        "The model provider behind Dify rejected Dify's credentials. Report this to the operator of that Dify.",
        log="A model provider rejected the credentials that Dify holds for it. Correct them in Dify.",
        started=started,
    )


def _translate_param(message: str, code: str | None, started: bool) -> ProxyError:
    for pattern, rule in _BY_PARAM_MESSAGE:
        if pattern.match(message):
            return rule(message, code, started)
    if started or message.startswith("Run failed:"):
        return _translate_message(message, code, True)
    if named := _REQUIRED_INPUT.match(message) or _BAD_INPUT.match(message):
        return InvalidRequest(
            with_detail("Dify rejected an input of the app", message), param=f"inputs.{named['name']}", code=code
        )
    return InvalidRequest(with_detail("Dify rejected the request", message), code=code, started=started)


def _unavailable(message: str, code: str | None, started: bool) -> ProxyError:
    return AppUnavailable(
        f"The Dify app behind this model is not ready to run. {SEE_LOG}",
        code=code,
        log=with_detail(f"Dify cannot run the app ({code})", message),
        started=started,
    )


def _speech_to_text_off(_message: str, _code: str | None, _started: bool) -> ProxyError:
    return InvalidRequest(
        "Speech to text is off in this Dify app. Turn on the feature 'Speech to Text' of the app in Dify, and publish "
        "it; or name another app as the model.",
        param="model",
        code="speech_to_text_disabled",
    )


def _text_to_speech_off(_message: str, _code: str | None, _started: bool) -> ProxyError:
    return InvalidRequest(
        "Text to speech is off in this Dify app. Turn on the feature 'Text to Speech' of the app in Dify, and publish "
        "it; or name another app as the model.",
        param="model",
        code="text_to_speech_disabled",
    )


def _no_audio_model(message: str, code: str | None, _started: bool) -> ProxyError:
    return AppUnavailable(
        f"Dify has no model for this audio call. {SEE_LOG}",
        code=code,
        log=f"{with_detail('Dify has no model for speech', message)} In Dify, choose one under Settings, Model "
        "Provider, System Model Settings.",
    )


def _form_submitted(_message: str, code: str | None, _started: bool) -> ProxyError:
    return FormClosed(
        "The form was answered already. The next message of the conversation starts a new run.",
        param="human_input",
        code=code,
    )


def _form_expired(_message: str, code: str | None, _started: bool) -> ProxyError:
    return FormClosed(
        "The form has expired. The next message of the conversation starts a new run.", param="human_input", code=code
    )


def _bad_form_data(message: str, code: str | None, _started: bool) -> ProxyError:
    return InvalidRequest(with_detail("Dify rejected the answer to the form", message), param="human_input", code=code)


def _unsupported_audio(_message: str, code: str | None, _started: bool) -> ProxyError:
    return UnsupportedMediaType("Dify does not accept audio of this type. Send MP3, WAV or M4A.", code=code)


def _wrong_route(message: str, code: str | None, started: bool) -> ProxyError:
    return AppUnavailable(
        f"The Dify app behind this model is not published, or its mode is not the configured one. {SEE_LOG}",
        code=code,
        log=f"{with_detail(f'Dify rejected the route ({code})', message)} "
        "Publish the app; if the settings name its mode, correct it.",
        started=started,
    )


def _not_found(message: str, code: str | None, started: bool) -> ProxyError:
    if message.startswith("Conversation Not Exists"):
        return ConversationNotFound(
            "Dify has no conversation with this id for this user. Omit the id to start a new one.",
            param="conversation_id",
        )
    if message.startswith("Form not found"):
        return NotFound(
            "Dify has no form with this token. Send the message again without it to start a new run.",
            param="human_input",
            code="human_input_form_not_found",
        )
    return NotFound(with_detail("Dify answered 404", message), code=code)


def _translate_status(code: str | None, status: int, message: str, started: bool) -> ProxyError:
    if status == 404:
        return _not_found(message, code, started)
    if status == 413:
        return BodyTooLarge("The request or one of its files is too large for Dify. Send less.", code=code)
    if status == 415:
        return UnsupportedMediaType(with_detail("Dify rejected the type of a file", message), code=code)
    if status == 429:
        return RateLimited(with_detail("Dify limits requests", message), code=code, started=started)
    if 400 <= status < 500:
        return _translate_param(message, code, started)
    return UpstreamFailed(with_detail("Dify failed", message or "no reason given"), code=code, started=started)


def _translate_front_proxy(status: int, content_type: str, url: str, setting: str) -> ProxyError:
    """Map an answer without Dify's error body, as a proxy in front of Dify sends it. The run may continue behind it."""
    answer = f"HTTP {status} ({content_type or 'no content type'})"
    if status in (503, 520, 521, 522, 523):
        return UpstreamUnreachable(f"Dify cannot be reached: {answer}.", started=True)
    if status in (504, 524):
        return UpstreamTimeout(f"Dify did not answer in time: {answer}.", started=True)
    if status == 413:
        return BodyTooLarge("The request is too large for a proxy in front of Dify. Send less.")
    if status == 429:
        return RateLimited("A proxy in front of Dify limits requests. Try again later.")
    if status == 404:
        return UpstreamMisconfigured(
            NO_API,
            log=f"The Dify URL '{url}' answered {answer}. "
            f"Set {setting} to the URL of Dify's API; it usually ends with /v1.",
        )
    return UpstreamFailed(f"A proxy in front of Dify answered {answer}.", started=status >= 500)


_Rule = Callable[[str, str | None, bool], ProxyError]

_BY_MESSAGE: tuple[tuple[re.Pattern[str], _Rule], ...] = (
    (_LOST_FILE, _lost_file),
    (_BAD_FILE, _bad_file),
    (_NO_PROVIDER, _unavailable),
    (_CONTEXT, _context_too_long),
    (_QUOTA, _out_of_quota),
    (_RATE, _provider_limit),
    (_PROVIDER_AUTH, _provider_auth),
)

_BY_PARAM_MESSAGE: tuple[tuple[re.Pattern[str], _Rule], ...] = (
    (_LOST_FILE, _lost_file),
    (_NO_PROVIDER, _unavailable),
    (_NO_SPEECH_TO_TEXT, _speech_to_text_off),
    (_NO_TEXT_TO_SPEECH, _text_to_speech_off),
)
"""Messages of ``invalid_param``."""

_BY_CODE: dict[str, _Rule] = {
    "invalid_param": _translate_param,
    "completion_request_error": _translate_model_failure,
    "rate_limit_error": _rate_limit_error,
    "provider_quota_exceeded": _out_of_quota,
    "provider_not_initialize": _unavailable,
    "model_currently_not_support": _unavailable,
    "agent_not_published": _unavailable,
    "speech_to_text_disabled": _speech_to_text_off,
    "text_to_speech_disabled": _text_to_speech_off,
    "provider_not_support_speech_to_text": _no_audio_model,
    "provider_not_support_text_to_speech": _no_audio_model,
    "unsupported_audio_type": _unsupported_audio,
    "human_input_form_submitted": _form_submitted,
    "human_input_form_expired": _form_expired,
    "invalid_form_data": _bad_form_data,
    "forbidden": lambda message, code, _started: PermissionDenied(
        f"API access of this Dify app is off. {SEE_LOG}",
        code=code,
        log=f"{with_detail('Dify answered 403', message)} Enable API access of the app in Dify.",
    ),
    "not_found": _not_found,
    **dict.fromkeys(WRONG_ROUTE_CODES, _wrong_route),
}
