from __future__ import annotations

from typing import Any

import pytest

from openai_dify_proxy.errors import InvalidRequest, ModelNotFound, UpstreamMisconfigured
from openai_dify_proxy.settings import AppSettings, ImageModelSettings, SecretStr, Settings
from openai_dify_proxy.turns.apps import App, Apps
from openai_dify_proxy.turns.callers import ANONYMOUS, caller_of_dify_key, caller_of_key

DIFY = "https://dify.example/v1"
OTHER = "https://other.example/v1"
CALLER = caller_of_key("sk-1")


def app(name: str, key: str | None = None, **fields: Any) -> AppSettings:
    return AppSettings(name=name, **{"api_key": SecretStr(key or f"app-{name}"), "api_url": DIFY, **fields})


def apps(*configured: AppSettings, default: str | None = None, url: str | None = DIFY, **fields: Any) -> Apps:
    return Apps(
        Settings(dify_api_url=url, apps={each.name: each for each in configured}, default_app=default, **fields)
    )


SUPPORT = app("support", aliases=("gpt-4o*", "claude"), api_url=OTHER, mode="workflow", output_variable="report")
WRITER = app("writer", aliases=("gpt-*", "org/*"))


# The requested model, the default app, and the app that answers.
CHOICES: dict[str, tuple[str | None, str | None, str]] = {
    "by its name": ("writer", None, "writer"),
    "by its name, though another is the default": ("writer", "support", "writer"),
    "by an alias": ("claude", None, "support"),
    "by a pattern": ("gpt-4o-mini", None, "support"),
    "by the first pattern that fits": ("gpt-4", None, "writer"),
    "by a pattern with a slash": ("org/some/model", None, "writer"),
    "by default": ("unheard-of", "support", "support"),
    "by default, no model": (None, "support", "support"),
}


@pytest.mark.parametrize(("model", "default", "name"), CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("caller", [CALLER, ANONYMOUS])
def test_the_app_of_a_model(caller: Any, model: str | None, default: str | None, name: str) -> None:
    assert apps(SUPPORT, WRITER, default=default).choose(caller, model).name == name


def test_a_name_takes_precedence_over_aliases() -> None:
    greedy = app("greedy", aliases=("*",))
    assert apps(greedy, WRITER).choose(CALLER, "writer").name == "writer"


@pytest.mark.parametrize("model", ["Writer", "support ", "gp"])
def test_an_unknown_model(model: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        apps(SUPPORT, WRITER).choose(CALLER, model)
    error = caught.value
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    assert "support, writer" in error.message
    assert "app-" not in error.message


@pytest.mark.parametrize("model", ["", None])
def test_a_request_without_a_model(model: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        apps(SUPPORT, WRITER).choose(CALLER, model)
    error = caught.value
    assert (error.status, error.code, error.param) == (400, "missing_required_parameter", "model")
    assert error.message == "Missing required parameter: 'model'. Available models: support, writer."
    with pytest.raises(ModelNotFound, match="Send a Dify key"):
        apps().choose(CALLER, model)


def test_lists_of_models_and_long_names_are_shortened() -> None:
    many = apps(*(app(f"app{number:03}") for number in range(30)))
    with pytest.raises(ModelNotFound) as caught:
        many.choose(CALLER, "x" * 5000)
    assert "and 10 more" in caught.value.message
    assert len(caught.value.message) < 1000


def test_a_server_without_apps_asks_for_a_dify_key() -> None:
    with pytest.raises(ModelNotFound) as caught:
        apps().choose(CALLER, "gpt-4o")
    assert "DIFY_API_KEY" in caught.value.message


def test_a_configured_app_uses_its_own_key() -> None:
    chosen = apps(SUPPORT, WRITER).choose(CALLER, "support")
    assert (chosen.dify.url, chosen.dify.key, chosen.dify.own_key) == (OTHER, "app-support", True)
    assert (chosen.mode, chosen.output_variable, chosen.progress) == ("workflow", "report", False)
    assert apps(app("a", progress="reasoning")).choose(CALLER, "a").progress


@pytest.mark.parametrize("model", ["support", "writer", "gpt-4o", "unheard-of", None])
def test_a_dify_key_names_its_app_for_any_model(model: str | None) -> None:
    """It authorizes only the call that it is sent with, never a key of the server."""
    chosen = apps(SUPPORT, WRITER, default="support").choose(caller_of_dify_key("app-theirs"), model)
    assert (chosen.dify.url, chosen.dify.key, chosen.dify.own_key) == (DIFY, "app-theirs", False)
    assert (chosen.mode, chosen.output_variable) == (None, None)


def test_a_configured_dify_key_uses_the_settings_of_its_app() -> None:
    chosen = apps(SUPPORT, WRITER).choose(caller_of_dify_key("app-support"), "anything")
    assert (chosen.dify.url, chosen.dify.key, chosen.dify.own_key) == (OTHER, "app-support", False)
    assert (chosen.name, chosen.mode, chosen.output_variable) == ("support", "workflow", "report")


def test_the_variables_for_a_single_app_apply_to_dify_keys_too() -> None:
    chosen = apps(input_variable="topic", output_variable="report").choose(caller_of_dify_key("app-theirs"), None)
    assert (chosen.rules.input_variable, chosen.output_variable) == ("topic", "report")


def test_a_dify_key_requires_a_dify_url() -> None:
    with pytest.raises(UpstreamMisconfigured) as caught:
        apps(url=None).choose(caller_of_dify_key("app-theirs"), None)
    assert "app-theirs" not in caught.value.message + (caught.value.log or "")


def test_all_apps_are_listed_by_name() -> None:
    served = apps(SUPPORT, WRITER).all
    assert list(served) == ["support", "writer"]
    assert all(isinstance(each, App) for each in served.values())


IMAGES: dict[str, Any] = {
    "replicate_api_token": SecretStr("r8_x"),
    "image_model": "stability-ai/sdxl",
    "image_models": {
        "sketch": ImageModelSettings(name="sketch", model="someone/sketcher"),
        "mine": ImageModelSettings(name="mine", model="deployment:me/own"),
    },
}
VERSION = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "model",
    [
        "stability-ai/sdxl",
        f"stability-ai/sdxl:{VERSION}",
        "sketch",
        "someone/sketcher",
        "black-forest-labs/flux-schnell",
        f"nobody/knows:{VERSION}",
        VERSION,
        "deployment:any/other",
        "dall-e-3",
        "openai/gpt-image-1",
        "gpt-image-1",
    ],
)
@pytest.mark.parametrize("default", ["support", None])
def test_an_image_model_does_not_chat(model: str, default: str | None) -> None:
    served = apps(SUPPORT, default=default, **IMAGES)
    assert served.names_image_model(model)
    with pytest.raises(ModelNotFound) as caught:
        served.choose(CALLER, model)
    assert (caught.value.status, caught.value.param) == (404, "model")
    assert "POST /v1/images/generations, or one of the models support." in caught.value.message
    assert served.choose(caller_of_dify_key("app-theirs"), model).dify.key == "app-theirs"


@pytest.mark.parametrize("model", ["meta-llama/llama-3", "gpt-4", "sdxl", f"sdxl:{VERSION}", "a/b:latest"])
def test_another_name_may_be_a_chat_model(model: str) -> None:
    served = apps(SUPPORT, default="support", **IMAGES)
    assert not served.names_image_model(model)
    assert served.choose(CALLER, model).name == "support"


def test_an_app_or_alias_takes_precedence_over_an_image_model() -> None:
    served = apps(app("sketch"), app("greedy", aliases=("stability-ai/*", "dall-e-3")), **IMAGES)
    assert served.choose(CALLER, "sketch").name == "sketch"
    for model in ("stability-ai/sdxl", "dall-e-3"):
        assert served.choose(CALLER, model).name == "greedy"
        assert not served.names_image_model(model)


def test_without_a_replicate_token_no_name_means_an_image_model() -> None:
    served = apps(SUPPORT, default="support", **{**IMAGES, "replicate_api_token": None})
    assert served.choose(CALLER, "dall-e-3").name == "support"


def test_a_server_without_apps_names_only_the_images_endpoint() -> None:
    with pytest.raises(ModelNotFound) as caught:
        apps(**IMAGES).choose(CALLER, "dall-e-3")
    assert caught.value.message.endswith("Use POST /v1/images/generations.")


# The requested model, the default app, the app of AUDIO_APP, and the app that answers.
AUDIO_CHOICES: dict[str, tuple[str | None, str | None, str | None, str]] = {
    "by its name": ("writer", None, "support", "writer"),
    "by an alias": ("claude", None, "writer", "support"),
    "for another name": ("whisper-1", None, "support", "support"),
    "for another name, not by default": ("whisper-1", "writer", "support", "support"),
    "for no name": (None, None, "support", "support"),
    "by default": ("whisper-1", "writer", None, "writer"),
}


@pytest.mark.parametrize(("model", "default", "audio", "name"), AUDIO_CHOICES.values(), ids=AUDIO_CHOICES)
def test_the_app_for_sound(model: str | None, default: str | None, audio: str | None, name: str) -> None:
    served = apps(SUPPORT, WRITER, default=default, audio_app=audio)
    assert served.choose_for_audio(CALLER, model).name == name
    assert served.answers_any_audio_model


def test_a_dify_key_chooses_the_app_for_sound() -> None:
    served = apps(SUPPORT, WRITER, audio_app="writer")
    assert served.choose_for_audio(caller_of_dify_key("app-support"), "whisper-1").name == "support"


def test_sound_without_an_app_for_its_model() -> None:
    served = apps(SUPPORT, WRITER)
    assert not served.answers_any_audio_model
    with pytest.raises(ModelNotFound) as caught:
        served.choose_for_audio(CALLER, "whisper-1")
    assert "AUDIO_APP" in caught.value.message
