"""Settings of images, pictures and IPFS: errors, warnings, and requirements of credentials."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from openai_dify_proxy.settings import (
    ImageModelSettings,
    SecretStr,
    Settings,
    SettingsError,
    decode_settings,
    encode_settings,
)
from openai_dify_proxy.settings.sources import load_settings

APP = {"DIFY_API_URL": "http://dify.test/v1", "DIFY_API_KEY": "app-Xk3jT9sQwLm2PzR7vB1nC4dY"}
TOKEN = "r8_0123456789abcdefghijklmnopqrstuvwxyz"


def load(env: Mapping[str, str] = {}, *, toml: Path | None = None) -> Settings:
    return load_settings(env=env, dotenv=None, config=toml)


def problems(env: Mapping[str, str] = {}, *, toml: Path | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(env, toml=toml)
    return caught.value.problems


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "proxy.toml"


def test_the_token_has_a_second_name() -> None:
    assert load({"REPLICATE_API_KEY": TOKEN}).replicate_api_token == SecretStr(TOKEN)
    assert load({"REPLICATE_API_KEY": "r8_other", "REPLICATE_API_TOKEN": TOKEN}).replicate_api_token == SecretStr(TOKEN)


def test_upload_authorization_is_taken_word_for_word() -> None:
    assert load({"IPFS_UPLOAD_AUTH": " Bearer a.b-c "}).ipfs_upload_auth == SecretStr("Bearer a.b-c")


def test_the_directory_of_its_own_name_goes_before_the_data_home() -> None:
    env = {"IMAGE_STORAGE_DIR": "/srv/pictures", "XDG_DATA_HOME": "/data"}
    assert load(env).image_storage_dir == "/srv/pictures"


@pytest.mark.parametrize(
    ("variable", "text", "complaint"),
    [
        ("REPLICATE_API_URL", "replicate.com", "must be the http:// or https:// address of Replicate's API"),
        ("REPLICATE_API_URL", "https://r8_x@replicate.test", "must not contain a user name or password"),
        ("IMAGE_UPSCALER", "real-esrgan", "must be a Replicate model: owner/name"),
        ("IMAGE_MODEL", "sdxl", "is neither a Replicate model (owner/name) nor a configured one"),
        ("REPLICATE_OUTPUT_HOSTS", "https://a.test/files", "must be hosts or origins"),
        ("REPLICATE_OUTPUT_HOSTS", "*", "must be hosts or origins"),
        ("UNSUPPORTED_PARAMETERS", "ignore", "must be 'reject', 'warn' or 'drop', not 'ignore'"),
        ("IMAGE_TIMEOUT", "0", "must be greater than 0, not '0'"),
        ("IMAGE_CONCURRENCY", "0", "must be an integer of at least 1, not '0'"),
        ("MAX_PICTURE_BYTES", "big", "must be a number of bytes"),
        ("PUBLIC_URL", "ai.example.com", "must be the http:// or https:// address of this proxy"),
        ("PUBLIC_URL", "https://ai.test/?x=1", "must not contain a query or fragment"),
        ("PICTURE_RETENTION", "forever", "must be a number of seconds"),
        ("PICTURE_RETENTION", "0", "must be greater than 0"),
        ("PICTURE_STORE", "/srv/pictures", "must be the address of a bucket"),
        ("PICTURE_STORE", "s3:///prefix", "must be the address of a bucket"),
        ("PICTURE_STORE", "s3://[bucket", "must be the address of a bucket"),
        ("PICTURE_STORE", "s3://id:secret@bucket", "must not contain a user name or password"),
        ("PICTURE_LINKS", "gateway", "must be 'local' or 'ipfs', not 'gateway'"),
        ("IPFS_UPLOAD_URL", "127.0.0.1:5001", "must be the http:// or https:// address of an IPFS node or service"),
        ("IPFS_UPLOAD_URL", "http://user:word@127.0.0.1:5001", "set IPFS_UPLOAD_AUTH to the full Authorization"),
        ("IPFS_UPLOAD_URL", "http://127.0.0.1:5001/#add", "must not contain a #"),
        ("IPFS_UPLOAD_AUTH", "Bearer …", "contains characters that HTTP headers do not allow"),
        ("IPFS_UPLOAD_FORM", "network", "must be pairs of a name and a value"),
        ("IPFS_UPLOAD_FORM", "=public", "must be pairs of a name and a value"),
        ("IPFS_GATEWAY_URL", "https://ipfs.io/ipfs/", "must contain {cid}"),
        ("IPFS_GATEWAY_URL", "ipfs://{cid}", "must be the http:// or https:// address of a gateway"),
        ("IPFS_TIMEOUT", "-1", "must be a number of seconds"),
        ("ENHANCE_PROMPT_APP", "writer", "is not the name of a configured app. Configured: none"),
    ],
)
def test_a_bad_value_is_named_with_its_place(variable: str, text: str, complaint: str) -> None:
    (problem,) = problems({variable: text})
    assert problem.startswith(f"{variable} in the environment ")
    assert complaint in problem


@pytest.mark.parametrize("variable", ["REPLICATE_API_TOKEN", "IPFS_UPLOAD_AUTH", "PICTURE_STORE"])
def test_a_bad_secret_is_not_repeated(variable: str) -> None:
    (problem,) = problems({variable: "geheim wört"})
    assert "geheim" not in problem


def test_secrets_are_not_in_any_text_of_the_settings() -> None:
    env = {
        "REPLICATE_API_TOKEN": TOKEN,
        "IPFS_UPLOAD_AUTH": f"Bearer {TOKEN}",
        "PICTURE_STORE": f"s3://bucket?secret_access_key={TOKEN}",
    }
    assert TOKEN not in repr(load(env))


def test_image_models_of_the_file(toml: Path) -> None:
    toml.write_text(
        """
        image_model = "sketch"
        ipfs_upload_form = { network = "public" }

        [images.models.sketch]
        model = "black-forest-labs/flux-schnell"
        inputs = { go_fast = true, megapixels = "1" }

        [images.models.poster]
        model = "stability-ai/sdxl"
        upscaler = "nightmareai/real-esrgan"
        mask_repaints = "black"
        """,
        encoding="utf-8",
    )
    settings = load(toml=toml)
    assert settings.image_model == "sketch"
    assert settings.ipfs_upload_form == {"network": "public"}
    assert settings.image_models == {
        "sketch": ImageModelSettings(
            name="sketch", model="black-forest-labs/flux-schnell", inputs={"go_fast": True, "megapixels": "1"}
        ),
        "poster": ImageModelSettings(
            name="poster", model="stability-ai/sdxl", upscaler="nightmareai/real-esrgan", mask_repaints="black"
        ),
    }


MODEL_TABLES = "images in {file} must contain a table for each model: write [images.models.<name>]"


@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        (
            '[images.models.flux-1.1]\nmodel = "black-forest-labs/flux-1.1-pro"\n',
            [
                (
                    "[images.models.flux-1.1] in {file} is not valid. "
                    'A name with a dot needs quotation marks: [images.models."flux-1.1"]'
                )
            ],
        ),
        ("images = 3", [MODEL_TABLES]),
        (
            "[images]\nmodels = 3",
            [MODEL_TABLES],
        ),
        (
            "[images.models]\nx = 3",
            [MODEL_TABLES],
        ),
        ("[images.model.x]\n", ["model of [images] in {file} is not a setting: [images] contains only models"]),
        (
            "[images.models.x]\n",
            ['[images.models.x] in {file} has neither model nor app. Set one, such as model = "stability-ai/sdxl"'],
        ),
        (
            "[images.models.x]\nmodel = 'a/b'\napp = 'support'\n",
            ['[images.models.x] in {file} has both model and app. Set one, such as model = "stability-ai/sdxl"'],
        ),
        (
            "[images.models.x]\napp = 'support'\nupscaler = 'a/b'\nmask_repaints = 'black'\n",
            [
                "app of [images.models.x] in {file} is not the name of a configured app. Configured: dify",
                "upscaler of [images.models.x] in {file} has no effect on a Dify app: remove it",
                "mask_repaints of [images.models.x] in {file} has no effect on a Dify app: remove it",
            ],
        ),
        (
            '[images.models.x]\nmodel = ""\ninput = {}',
            [
                "input of [images.models.x] in {file} is not a setting of an image model: did you mean inputs?",
                "model of [images.models.x] in {file} must not be empty",
            ],
        ),
        (
            "[images.models.x]\nmodel = 'a b'\nupscaler = 'a/b:1'",
            [
                f"{key} of [images.models.x] in {{file}} must be a Replicate model: owner/name, owner/name:version, "
                f"or deployment:owner/name, not '{value}'"
                for key, value in (("model", "a b"), ("upscaler", "a/b:1"))
            ],
        ),
        (
            "image_model = 'sketsh'\n[images.models.sketch]\nmodel = 'a/b'",
            [
                (
                    "image_model in {file} is neither a Replicate model (owner/name) nor a configured one: "
                    "did you mean sketch?"
                )
            ],
        ),
        (
            "[images.models.x]\nmodel = 'a/b'\ninputs = { day = 2026-01-01 }",
            [
                (
                    "inputs of [images.models.x] in {file} contains values that JSON cannot represent (day): "
                    "write dates and times as text"
                )
            ],
        ),
        (
            "[images.models.dify]\nmodel = 'a/b'",
            [
                (
                    "[images.models.dify] in {file} has the name of an app: rename it, "
                    "since clients see one list of models"
                )
            ],
        ),
        ("image_models = 3", ["image_models in {file} is not a setting: did you mean image_model?"]),
    ],
)
def test_errors_in_a_toml_file(toml: Path, text: str, complaints: list[str]) -> None:
    toml.write_text(text, encoding="utf-8")
    assert problems(APP, toml=toml) == [complaint.format(file=toml) for complaint in complaints]


def test_links_to_a_gateway_need_a_gateway_and_uploads() -> None:
    assert problems({"PICTURE_LINKS": "ipfs"}) == [
        "PICTURE_LINKS in the environment requires IPFS_GATEWAY_URL",
        "PICTURE_LINKS in the environment requires IPFS_UPLOAD_URL",
    ]
    assert len(problems({"PICTURE_LINKS": "ipfs", "IPFS_UPLOAD_URL": "x", "IPFS_GATEWAY_URL": "x"})) == 2


@pytest.mark.parametrize(
    ("env", "held"),
    [
        ({"REPLICATE_API_TOKEN": TOKEN}, "the Replicate token"),
        ({"IPFS_UPLOAD_AUTH": "Bearer x"}, "the IPFS account"),
        ({"PICTURE_STORE": "s3://bucket"}, "the object store"),
        ({**APP, "REPLICATE_API_TOKEN": TOKEN}, "the Dify keys and the Replicate token"),
    ],
)
def test_no_credential_is_open_to_strangers(env: Mapping[str, str], held: str) -> None:
    problem = load({**env, "HOST": "0.0.0.0"}).unprotected
    assert problem is not None
    assert f"could use {held}." in problem
    assert load({**env, "HOST": "0.0.0.0", "API_KEYS": "client-1"}).unprotected is None
    assert load({**env, "HOST": "127.0.0.1"}).unprotected is None


def test_workers_get_the_very_settings(toml: Path) -> None:
    toml.write_text("[images.models.x]\nmodel = 'a/b'", encoding="utf-8")
    env = {"REPLICATE_API_TOKEN": TOKEN, "IPFS_UPLOAD_FORM": "a=b", "PICTURE_STORE": "s3://bucket?region=x"}
    settings = load(env, toml=toml)
    assert decode_settings(encode_settings(settings)) == settings
