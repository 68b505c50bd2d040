"""Settings of audio requests."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from openai_dify_proxy.settings import Settings, SettingsError, decode_settings, encode_settings
from openai_dify_proxy.settings.sources import load_settings

DIFY = {"DIFY_API_URL": "http://127.0.0.1:1", "DIFY_MODEL_MAP": "support:app-1,voice:app-2"}


def load(env: Mapping[str, str]) -> Settings:
    settings = load_settings(env={**DIFY, **env}, dotenv=None)
    assert decode_settings(encode_settings(settings)) == settings, "workers get other settings than their parent"
    return settings


def problems(env: Mapping[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings(env={**DIFY, **env}, dotenv=None)
    return caught.value.problems


def test_defaults() -> None:
    settings = load({})
    assert (settings.audio_app, settings.audio_voices) == (None, {})


def test_an_app_for_sound() -> None:
    assert load({"AUDIO_APP": "voice"}).audio_app == "voice"


def test_the_app_for_sound_must_be_configured() -> None:
    (problem,) = problems({"AUDIO_APP": "voices"})
    assert problem == "AUDIO_APP in the environment is not the name of a configured app: did you mean voice?"


def test_voices_are_pairs() -> None:
    voices = load({"AUDIO_VOICES": "alloy=en-US-AvaNeural, echo=, *=other"}).audio_voices
    assert voices == {"alloy": "en-US-AvaNeural", "echo": "", "*": "other"}


def test_voices_that_are_no_pairs() -> None:
    (problem,) = problems({"AUDIO_VOICES": "alloy"})
    assert problem.startswith("AUDIO_VOICES in the environment must be pairs of a name and a value")
