"""The names of image models, which cannot answer turns."""

from __future__ import annotations

from openai_dify_proxy.settings import Settings
from openai_dify_proxy.translate.replicate.known_models import WELL_KNOWN
from openai_dify_proxy.translate.replicate.model_names import is_openai_name, parse_model


class ImageModelNames:
    """The image models of this server, OpenAI's, and well-known ones on Replicate.

    Without a Replicate token, only those that Dify apps serve.

    Any other ``owner/name`` may be a chat model, as ``meta-llama/llama-3`` is. Replicate's ``owner/name:version`` and
    ``deployment:owner/name`` are never names of chat models.
    """

    def __init__(self, settings: Settings) -> None:
        self._enabled = settings.replicate_api_token is not None
        self._listed = {settings.image_model, *settings.image_models}
        self._by_app = {name for name, model in settings.image_models.items() if model.app is not None}
        configured = [model.model for model in settings.image_models.values() if model.model is not None]
        models = [settings.image_model, *configured]
        refs = [ref for model in models if (ref := parse_model(model)) is not None]
        self._replicate = {*WELL_KNOWN, *(ref.name for ref in refs)}

    def __contains__(self, name: str) -> bool:
        if not self._enabled:
            return name in self._by_app
        if name in self._listed or is_openai_name(name) or is_openai_name(name.rpartition("/")[2]):
            return True
        ref = parse_model(name)
        return ref is not None and (ref.name is None or ref.version is not None or ref.name in self._replicate)
