"""Which Dify app a request means."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from msgspec import Struct, structs

from openai_dify_proxy.errors import ModelNotFound, UpstreamMisconfigured
from openai_dify_proxy.settings import AppSettings, ConversationRule, Settings
from openai_dify_proxy.translate.dify.request import AppRules
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.image_names import ImageModelNames
from openai_dify_proxy.upstream.dify import DifyApp
from openai_dify_proxy.wire.dify import Mode

_NAMES_SHOWN = 20


class App(Struct, frozen=True):
    """A configured app, or one that a request's own Dify key names."""

    name: str
    dify: DifyApp
    rules: AppRules = AppRules()
    mode: Mode | None = None
    output_variable: str | None = None
    progress: bool = False
    aliases: tuple[str, ...] = ()
    conversations: ConversationRule = "auto"


class Apps:
    """The models that this proxy serves."""

    def __init__(self, settings: Settings) -> None:
        self._apps = {name: _app(app, settings.conversations) for name, app in settings.apps.items()}
        self._default = settings.default_app
        self._url = settings.dify_api_url
        self._keyed_rules = AppRules(settings.input_variable)
        self._keyed_output = settings.output_variable
        self._keyed_conversations = settings.conversations
        self._by_key = {app.dify.key: app for app in self._apps.values()}
        self._patterns = [(pattern, app) for app in self._apps.values() for pattern in app.aliases]
        self._image_models = ImageModelNames(settings)

    @property
    def all(self) -> Mapping[str, App]:
        return self._apps

    def choose(self, caller: Caller, model: str | None) -> App:
        """The app for ``model``; a Dify key that the request brought names its app whatever the model.

        Raises ModelNotFound, which lists the known models.
        """
        if caller.dify_key is not None:
            return self._of_key(caller.dify_key)
        if model is not None:
            app = self.named(model)
            if app is not None:
                return app
            if model in self._image_models:
                raise ModelNotFound(self._no_chat_model(model), param="model")
        if self._default is not None:
            return self._apps[self._default]
        raise ModelNotFound(self._unknown(model), param="model")

    def named(self, model: str) -> App | None:
        """The app of that very name, else the first with an alias that fits."""
        app = self._apps.get(model)
        if app is not None:
            return app
        return next((app for pattern, app in self._patterns if fnmatchcase(model, pattern)), None)

    def names_image_model(self, model: str) -> bool:
        """Return whether ``model`` is an image model and no app's name or alias."""
        return model in self._image_models and self.named(model) is None

    def _of_key(self, key: str) -> App:
        """Settings made for an app hold for whoever brings its key; its faults are then the caller's to know."""
        known = self._by_key.get(key)
        if known is not None:
            return structs.replace(known, dify=DifyApp(known.dify.url, key, own_key=False), aliases=())
        if self._url is None:
            raise UpstreamMisconfigured(
                "This server has no Dify to take your key to. Tell its operator.",
                log="A request brought a Dify key, but DIFY_API_URL is not set.",
            )
        return App(
            "dify",
            DifyApp(self._url, key, own_key=False),
            self._keyed_rules,
            output_variable=self._keyed_output,
            conversations=self._keyed_conversations,
        )

    def _unknown(self, model: str | None) -> str:
        asked = "The request names no model" if not model else f"There is no model '{model[:200]}'"
        if not self._apps:
            return f"{asked}: this server has no apps of its own. Send a Dify key in the DIFY_API_KEY header."
        return f"{asked}. Known are: {self._listed_names()}."

    def _no_chat_model(self, model: str) -> str:
        other = f", or one of the models {self._listed_names()}" if self._apps else ""
        return f"'{model[:200]}' is an image model and does not chat. Use POST /v1/images/generations{other}."

    def _listed_names(self) -> str:
        names = sorted(self._apps)
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        return ", ".join(names[:_NAMES_SHOWN]) + more


def _app(settings: AppSettings, conversations: ConversationRule) -> App:
    return App(
        settings.name,
        DifyApp(settings.api_url, settings.api_key.get_secret_value()),
        AppRules(settings.input_variable, settings.system_prompt, settings.inputs),
        settings.mode,
        settings.output_variable,
        settings.progress == "reasoning",
        tuple(settings.aliases),
        settings.conversations or conversations,
    )
