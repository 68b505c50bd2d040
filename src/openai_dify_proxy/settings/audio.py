"""The settings of audio requests; ``model`` has the other settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from openai_dify_proxy.settings.markers import Shown
from openai_dify_proxy.settings.values import Form, Text


@dataclass(frozen=True, kw_only=True)
class AudioSettings:
    """Audio"""

    audio_app: Annotated[Text | None, Shown(default="the app that the request names")] = None
    """The configured app that serves [audio requests](audio.md) whose model is no configured app.

    Clients name `whisper-1` or `tts-1`, which this app then answers."""
    audio_voices: Form = field(default_factory=dict)
    """The app's voices by the names that clients send: `alloy=en-US-AvaNeural,echo=en-US-AndrewNeural`.

    `*` stands for all other names, and an empty voice for the one that is set in the app. Without an entry, a name
    reaches the app unchanged."""
