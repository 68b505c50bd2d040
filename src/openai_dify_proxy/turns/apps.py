"""Choose the Dify app of a request by its model name or Dify key."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from msgspec import Struct, structs

from openai_dify_proxy.errors import SEE_LOG, InvalidRequest, ModelNotAllowed, ModelNotFound, UpstreamMisconfigured
from openai_dify_proxy.settings import AppSettings, ConversationRule, Settings, ToolsRule
from openai_dify_proxy.translate.dify.request import AppRules
from openai_dify_proxy.translate.turn_request import FormMode
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.image_names import ImageModelNames
from openai_dify_proxy.upstream.dify import URL_SETTING, DifyApp
from openai_dify_proxy.wire.dify import Mode

_MAX_LISTED = 20
"""How many models an error message lists."""


_WILDCARDS = frozenset("*?[")

_SET_AUDIO_APP = "The operator can set AUDIO_APP to the app that serves other names."


class App(Struct, frozen=True):
    """A configured app, or the app of a Dify key that came in a request."""

    name: str
    dify: DifyApp
    rules: AppRules = AppRules()
    mode: Mode | None = None
    output_variable: str | None = None
    progress: bool = False
    aliases: tuple[str, ...] = ()
    conversations: ConversationRule = "auto"
    tools: ToolsRule = "auto"
    human_input: FormMode = "auto"


class Apps:
    """The apps that this proxy serves, by model name."""

    def __init__(self, settings: Settings) -> None:
        self._apps = {name: _app(app, settings) for name, app in settings.apps.items()}
        self._default = settings.default_app
        self._audio = settings.audio_app
        self._url = settings.dify_api_url
        self._keyed_rules = AppRules(settings.input_variable)
        self._keyed_output = settings.output_variable
        self._keyed_conversations = settings.conversations
        self._keyed_tools = settings.tools
        self._keyed_human_input = settings.human_input
        self._by_key = {app.dify.key: app for app in self._apps.values()}
        self._patterns = [(pattern, app) for app in self._apps.values() for pattern in app.aliases]
        self._image_models = ImageModelNames(settings)

    @property
    def all(self) -> Mapping[str, App]:
        return self._apps

    @property
    def urls(self) -> list[str]:
        """The URLs of all Difys, each once."""
        urls = [app.dify.url for app in self._apps.values()]
        return list(dict.fromkeys([*urls, self._url] if self._url else urls))

    def choose(self, caller: Caller, model: str | None) -> App:
        """Return the app for ``model``, or the app of the request's own Dify key, for which ``model`` is ignored.

        Raises ModelNotFound, which lists the known models, ModelNotAllowed for a model that the caller's key excludes,
        and InvalidRequest if several apps are configured, none is the default, and the request names no model.
        """
        if caller.dify_key is not None:
            return self._app_of_key(caller.dify_key)
        if model is not None:
            app = self.named(model)
            if app is not None:
                return app if caller.models is None else self._allowed(caller, app, model)
            if model in self._image_models:
                raise ModelNotFound(self._no_chat_model(caller, model), param="model")
        if self._default is not None:
            return self._allowed(caller, self._apps[self._default], model)
        if not model and self._apps:
            raise InvalidRequest(
                f"Missing required parameter: 'model'. Available models: {self._listed_names(caller)}.",
                param="model",
                code="missing_required_parameter",
            )
        raise ModelNotFound(self._unknown(caller, model), param="model")

    def choose_own(self, caller: Caller, name: str) -> App:
        """Return the app that a setting names for a purpose of the server's, or that of the request's own Dify key.

        The allowed models of the caller's key do not apply.
        """
        return self._app_of_key(caller.dify_key) if caller.dify_key is not None else self._apps[name]

    def names_for(self, caller: Caller) -> list[tuple[str, App]]:
        """Return the models that the caller may use: the names of apps, or an allowed alias of an app."""
        names = []
        for app in self._apps.values():
            if caller.may_use(app.name):
                names.append((app.name, app))
            else:
                aliases = (alias for alias in app.aliases if not _WILDCARDS & set(alias))
                names += [(alias, app) for alias in aliases if caller.may_use(alias)]
        return names

    def _allowed(self, caller: Caller, app: App, model: str | None) -> App:
        """Return the app. Raises ModelNotAllowed.

        An allowed name counts only if the app has it: the default app answers any name.
        """
        if caller.models is None or caller.may_use(app.name):
            return app
        if model is not None and self.named(model) is app and caller.may_use(model):
            return app
        asked = f"the model '{(model or app.name)[:200]}'"
        raise ModelNotAllowed(
            f"Your API key does not have access to {asked}. Available models: {self._listed_names(caller)}.",
            param="model",
        )

    @property
    def answers_any_audio_model(self) -> bool:
        """Whether an app serves sound for model names that no app has."""
        return self._audio is not None or self._default is not None

    def choose_for_audio(self, caller: Caller, model: str | None) -> App:
        """Return the app that serves sound: the one named ``model``, else that of ``AUDIO_APP``, else as ``choose``.

        Raises the errors of ``choose``.
        """
        if caller.dify_key is None and self._audio is not None and (not model or self.named(model) is None):
            return self._allowed(caller, self._apps[self._audio], None)
        try:
            return self.choose(caller, model)
        except ModelNotFound as error:
            raise ModelNotFound(f"{error.message} {_SET_AUDIO_APP}", param="model") from None

    def named(self, model: str) -> App | None:
        """Return the app with this name, else the first one with a matching alias."""
        app = self._apps.get(model)
        if app is not None:
            return app
        return next((app for pattern, app in self._patterns if fnmatchcase(model, pattern)), None)

    def names_image_model(self, model: str) -> bool:
        """Return whether ``model`` is an image model and no app's name or alias."""
        return model in self._image_models and self.named(model) is None

    def _app_of_key(self, key: str) -> App:
        """Return the app of a client's Dify key: with its settings if it is configured, else with the defaults.

        ``own_key`` is false either way, so errors about the key reach the client.
        """
        known = self._by_key.get(key)
        if known is not None:
            return structs.replace(known, dify=structs.replace(known.dify, own_key=False), aliases=())
        if self._url is None:
            raise UpstreamMisconfigured(
                f"This server has no Dify URL for your key. {SEE_LOG}",
                log="A request came with a Dify key, but DIFY_API_URL is not set. Set it, or set PASSTHROUGH_KEYS=off.",
            )
        return App(
            "dify",
            DifyApp(self._url, key, own_key=False),
            self._keyed_rules,
            output_variable=self._keyed_output,
            conversations=self._keyed_conversations,
            tools=self._keyed_tools,
            human_input=self._keyed_human_input,
        )

    def _unknown(self, caller: Caller, model: str | None) -> str:
        asked = "The request names no model" if not model else f"There is no model '{model[:200]}'"
        if not self._apps:
            return (
                f"{asked}, and no apps are configured. Send a Dify key as the API key, or in the DIFY_API_KEY header."
            )
        return f"{asked}. Available models: {self._listed_names(caller)}."

    def _no_chat_model(self, caller: Caller, model: str) -> str:
        other = f", or one of the models {self._listed_names(caller)}" if self._apps else ""
        return f"'{model[:200]}' is an image model and does not chat. Use POST /v1/images/generations{other}."

    def _listed_names(self, caller: Caller) -> str:
        names = sorted(name for name, _ in self.names_for(caller))
        more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
        return ", ".join(names[:_MAX_LISTED]) + more or "none"


def configured_dify_app(app: AppSettings, settings: Settings) -> DifyApp:
    """Return the address and key of a configured app."""
    url_setting = URL_SETTING if app.api_url == settings.dify_api_url else f"api_url of the app {app.name}"
    return DifyApp(app.api_url, app.api_key.get_secret_value(), url_setting=url_setting)


def _app(app: AppSettings, settings: Settings) -> App:
    return App(
        app.name,
        configured_dify_app(app, settings),
        AppRules(app.input_variable, app.system_prompt, app.inputs),
        app.mode,
        app.output_variable,
        app.progress == "reasoning",
        tuple(app.aliases),
        app.conversations or settings.conversations,
        app.tools or settings.tools,
        app.human_input or settings.human_input,
    )
