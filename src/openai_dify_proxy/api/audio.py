"""``/v1/audio/*``: speech to text and text to speech with Dify apps."""

from __future__ import annotations

import asyncio
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from openai_dify_proxy.api.audio_requests import read_recording
from openai_dify_proxy.api.audio_streams import SpeechStream, TranscriptFrames
from openai_dify_proxy.api.bodies import json_response
from openai_dify_proxy.api.errors import shutting_down
from openai_dify_proxy.api.generation import queue_headers
from openai_dify_proxy.api.limits import enforce_limits
from openai_dify_proxy.api.notices import add_notice
from openai_dify_proxy.api.responder import record_of, responder_of
from openai_dify_proxy.api.services import Services, identity_of, services_of
from openai_dify_proxy.api.streaming import EventStream
from openai_dify_proxy.audio.service import AudioCall
from openai_dify_proxy.errors import AuthenticationFailed
from openai_dify_proxy.translate.openai.speech import OPENAI_SPEECH_MODELS, read_speech, voice_names
from openai_dify_proxy.translate.openai.transcriptions import encode_transcription
from openai_dify_proxy.turns.apps import App
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.wire.openai.audio import SPEECH_REQUEST, AudioModel, AudioModels, Voice, Voices


async def transcribe(request: Request) -> ASGIApp:
    """Transcribe an audio file, streamed or whole."""
    services = services_of(request)
    caller = await services.admit(request, takes_forms=True)
    recording = await read_recording(request, services.bodies)
    wanted = recording.request
    call = _call(request, services, caller, wanted.model, wanted.user, streamed=wanted.stream)
    await enforce_limits(responder_of(request.scope), services, caller)
    add_notice(responder_of(request.scope), wanted.unsupported)
    work = partial(services.audio.transcribe, call, recording.audio, recording.format)
    if wanted.stream:
        frames = TranscriptFrames(work, call)
        return EventStream(frames, frames.opened(), services.timing)
    try:
        text = await work()
    except asyncio.CancelledError:
        raise shutting_down() from None
    kind = "text/plain; charset=utf-8" if wanted.response_format == "text" else "application/json"
    headers = {name.decode(): value.decode() for name, value in queue_headers(call.wait)}
    return Response(encode_transcription(wanted, text), 200, headers, kind)


async def speak(request: Request) -> ASGIApp:
    """Speak a text."""
    services = services_of(request)
    caller = await services.admit(request)
    spoken = read_speech(await services.bodies.read_json(request, SPEECH_REQUEST))
    services.audio.converter.check(spoken.response_format)
    call = _call(request, services, caller, spoken.model, spoken.user, streamed=False)
    await enforce_limits(responder_of(request.scope), services, caller)
    add_notice(responder_of(request.scope), spoken.unsupported)
    speech = services.audio.speech(call, spoken)
    return SpeechStream(speech, call.wait, services.timing.write_timeout, events=spoken.events)


async def list_audio_models(request: Request) -> Response:
    """List the models that speak. Open WebUI asks without a key, and then sees OpenAI's names only."""
    services = services_of(request)
    caller = _caller(request, services)
    names = list(OPENAI_SPEECH_MODELS) if services.apps.answers_any_audio_model else []
    if caller is not None and caller.dify_key is not None:
        names = [services.apps.choose(caller, None).name]
    elif caller is not None:
        names += [name for name, app in services.apps.names_for(caller) if _may_speak(services, app)]
    models = [AudioModel(id=name, name=name, created=services.started) for name in names]
    return json_response(AudioModels(data=models, models=models))


async def list_voices(request: Request) -> Response:
    """List the names of voices. Open WebUI asks without a key."""
    services = services_of(request)
    _caller(request, services)
    return json_response(Voices([Voice(name, name) for name in voice_names(services.audio.voices)]))


def _caller(request: Request, services: Services) -> Caller | None:
    """Return the caller, or None without a valid key. Raises the other errors of ``Authenticator.admit``."""
    try:
        return services.authenticator.admit(request)
    except AuthenticationFailed:
        return None


def _may_speak(services: Services, app: App) -> bool:
    """Return False for an app that is known to have text to speech off."""
    profile = services.profiles.cached(app.dify)
    switch = None if profile is None else profile.parameters.text_to_speech
    return switch is None or switch.enabled is not False


def _call(
    request: Request, services: Services, caller: Caller, model: str | None, user: str | None, *, streamed: bool
) -> AudioCall:
    """Return the call for the app that ``model`` means. Raises ProxyError."""
    record_of(request.scope).model = model
    return AudioCall(
        caller,
        services.apps.choose_for_audio(caller, model),
        identity_of(request, caller).end_user or user,
        responder_of(request.scope),
        services.turns.wait(streamed=streamed),
    )
