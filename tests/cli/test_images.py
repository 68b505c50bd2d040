"""``check`` for images, and ``models``: against a Replicate with the schemas of real models."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from openai_dify_proxy_demo import DemoServer
from openai_dify_proxy_demo.replicate import DEMO_MODELS, DemoReplicate
from tests.cli.program import Program
from tests.cli.tables import findings, row, rows
from tests.components.odd_ipfs import answer, odd_ipfs

NOBODYS = "http://127.0.0.1:9"
VERSIONS = {model.name: model.version for model in DEMO_MODELS}


def images(replicate: DemoReplicate, **more: str) -> dict[str, str]:
    return {"REPLICATE_API_URL": replicate.url, "REPLICATE_API_TOKEN": replicate.token, **more}


def check(program: Program, toml: str = "", **env: str) -> tuple[int, str]:
    """Exit code and output of ``check`` with the demo's apps, which are fine, and these settings for images."""
    (program.directory / "images.toml").write_text(toml)
    ended = program.run("check", "--config", "images.toml", **env)
    assert ended.stderr == ""
    return ended.returncode, ended.stdout


def test_the_demo_is_fine(program: Program) -> None:
    code, shown = check(program)
    assert code == 0
    name, works, takes, refuses = row(shown, "stability-ai/sdxl (default)")
    assert (name, works) == ("stability-ai/sdxl (default)", "yes")
    assert takes.startswith("Output-Format, Output-Quality, Scheduler, ")
    assert refuses == "Enhance-Prompt, Style-Preset"
    assert row(shown, "nightmareai/real-esrgan (upscaler)")[1] == "yes"
    assert "REPLICATE_API_TOKEN is not set, so pictures come from the demo." in shown.splitlines()
    assert "token is valid" not in shown
    assert not findings(shown)


def test_configured_models_are_asked_for(program: Program, replicate: DemoReplicate) -> None:
    toml = """
        image_model = "poster"
        [images.models.poster]
        model = "black-forest-labs/flux-pro"
        upscaler = "xinntao/realesrgan"
        inputs = { safety_tolerance = 1 }
        [images.models.sketch]
        model = "black-forest-labs/flux-schnell"
    """
    code, shown = check(program, toml, **images(replicate))
    assert (code, findings(shown)) == (0, [])
    assert f"Replicate at {replicate.url}: the token is valid." in shown.splitlines()
    assert "Num-Inference-Steps" in row(shown, "poster (default)")[2]
    assert row(shown, "sketch")[3].startswith("Scheduler, Guidance-Scale, ")
    assert row(shown, "xinntao/realesrgan (upscaler)")[1] == "yes"
    assert replicate.log.creations() == 0
    assert replicate.token not in shown


def test_pictures_need_a_token(program: Program, dify: DemoServer) -> None:
    ended = program.run("check", DIFY_API_URL=dify.url, DIFY_API_KEY="app-demo-chat")
    assert ended.returncode == 0
    assert "Image generation is off: REPLICATE_API_TOKEN is not set." in ended.stdout.splitlines()


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ('image_model = "nobody/nothing"', "problem nobody/nothing (default): Replicate does not have this model"),
        ('image_upscaler = "nobody/nothing"', "problem nobody/nothing (upscaler): Replicate does not have this model"),
        (
            'image_upscaler = "black-forest-labs/flux-schnell"',
            (
                "problem black-forest-labs/flux-schnell (upscaler): "
                "This model has no input for a picture, so it cannot upscale one. Choose another."
            ),
        ),
        (
            '[images.models.x]\nmodel = "stability-ai/sdxl"\ninputs = { go_fast = true }',
            "problem x: inputs sets 'go_fast', which is not an input of the model. Remove it.",
        ),
        (
            '[images.models.x]\nmodel = "black-forest-labs/flux-schnell"\ninputs = { num_inference_steps = 9 }',
            (
                "problem x: num_inference_steps of inputs is too large. This model's 'num_inference_steps' must be an "
                "integer from 1 to 4."
            ),
        ),
    ],
)
def test_what_keeps_a_model_from_serving(program: Program, replicate: DemoReplicate, toml: str, problem: str) -> None:
    code, shown = check(program, toml, **images(replicate))
    assert code == 1
    (found,) = findings(shown)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("model", "note"),
    [
        ("xinntao/realesrgan", "The model requires an input picture (img), so it supports edits only."),
        (VERSIONS["stability-ai/sdxl"], "Replicate cannot look up a version alone. Name it as owner/name:version."),
    ],
)
def test_notes_on_a_model(program: Program, replicate: DemoReplicate, model: str, note: str) -> None:
    code, shown = check(program, f'[images.models.x]\nmodel = "{model}"', **images(replicate))
    assert code == 0
    (found,) = findings(shown)
    assert found.startswith(f"note x: {note}")


def test_a_token_that_is_refused(program: Program, replicate: DemoReplicate) -> None:
    code, shown = check(program, **images(replicate, REPLICATE_API_TOKEN="r8_somebody_elses"))
    assert code == 1
    assert findings(shown)[0].startswith(f"problem Replicate at {replicate.url}: Replicate answered 401: ")
    assert "r8_somebody_elses" not in shown


def test_a_replicate_that_is_down(program: Program) -> None:
    code, shown = check(program, REPLICATE_API_URL=NOBODYS, REPLICATE_API_TOKEN="r8_demo")
    assert code == 1
    assert findings(shown)[0].startswith(f"problem Replicate at {NOBODYS}/v1: ")


def test_the_directory_must_be_one_to_write_in(program: Program, replicate: DemoReplicate, tmp_path: Path) -> None:
    fine = tmp_path / "not" / "yet"
    code, shown = check(program, **images(replicate, IMAGE_STORAGE_DIR=str(fine)))
    assert code == 0
    assert f"Pictures: {fine} is writable, " in shown
    assert not fine.parent.exists()

    in_the_way = tmp_path / "file"
    in_the_way.touch()
    for directory in (in_the_way, in_the_way / "pictures"):
        code, shown = check(program, **images(replicate, IMAGE_STORAGE_DIR=str(directory)))
        assert code == 1
        (found,) = findings(shown)
        assert found == (
            f"problem Pictures: IMAGE_STORAGE_DIR '{directory}' cannot be created: {in_the_way} is not a directory. "
            "Set IMAGE_STORAGE_DIR."
        )


def test_an_object_store_that_is_down(program: Program, replicate: DemoReplicate) -> None:
    store = f"s3://bucket/pictures?endpoint={NOBODYS}&access_key_id=one&secret_access_key=hidden&region=us-east-1"
    code, shown = check(program, **images(replicate, PICTURE_STORE=store))
    assert code == 1
    (found,) = findings(shown)
    assert found.startswith("problem Pictures in PICTURE_STORE: ")
    assert "hidden" not in shown


def test_an_object_store_with_an_option_that_there_is_not(program: Program, replicate: DemoReplicate) -> None:
    code, shown = check(program, **images(replicate, PICTURE_STORE="s3://bucket/pictures?colour=red"))
    assert code == 1
    (found,) = findings(shown)
    assert found.startswith("problem Pictures in PICTURE_STORE: PICTURE_STORE ")


# --- IPFS ------------------------------------------------------------------------------------------------------


KUBO_WITHOUT_FILE = '{"Message":"file argument \'path\' is required","Code":0,"Type":"error"}'


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        ("400 Bad Request", KUBO_WITHOUT_FILE, None),
        ("500 Internal Server Error", KUBO_WITHOUT_FILE, None),
        ("422 Unprocessable Content", "no file", None),
        ("401 Unauthorized", "{}", "IPFS rejected the server's credentials. Status 401: {}"),
        ("403 Forbidden", "no", "IPFS rejected the server's credentials. Status 403: no"),
        ("404 Not Found", "", "IPFS_UPLOAD_URL does not accept uploads. Status 404."),
        ("502 Bad Gateway", "<html>", "IPFS rejected the picture. Status 502: <html>"),
    ],
)
async def test_what_ipfs_says_to_an_upload_without_a_file(
    program: Program, replicate: DemoReplicate, status: str, body: str, problem: str | None
) -> None:
    async with odd_ipfs(answer(body, status)) as node:
        env = images(
            replicate,
            IPFS_UPLOAD_URL=f"{node.url}/up?key=hidden",
            IPFS_UPLOAD_AUTH="Bearer secret",
            IPFS_UPLOAD_FORM="network=public",
        )
        code, shown = await asyncio.to_thread(check, program, **env)
    (upload,) = node.uploads
    assert (upload.headers["authorization"], upload.form) == ("Bearer secret", {"network": "public"})
    assert b"filename" not in upload.body
    assert code == (0 if problem is None else 1)
    assert findings(shown) == ([] if problem is None else [f"problem IPFS at {node.url}/up: {problem}"])
    assert "hidden" not in shown
    assert "secret" not in shown


def test_an_ipfs_node_that_is_not_there(program: Program, replicate: DemoReplicate) -> None:
    code, shown = check(program, **images(replicate, IPFS_UPLOAD_URL=NOBODYS))
    assert code == 1
    assert findings(shown)[0].startswith(
        f"problem IPFS at {NOBODYS}/api/v0/add: IPFS at 127.0.0.1:9 refused the connection. "
    )


# --- models ----------------------------------------------------------------------------------------------------


def test_what_the_headers_do_with_a_model(program: Program, replicate: DemoReplicate) -> None:
    ended = program.run("models", "black-forest-labs/flux-pro", **images(replicate))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert row(ended.stdout, "X-Replicate-Num-Inference-Steps")[1:] == ["steps", "an integer from 1 to 50"]
    assert row(ended.stdout, "X-Replicate-Guidance-Scale")[1:] == ["guidance", "a number from 2 to 5"]
    assert row(ended.stdout, "X-Replicate-Num-Outputs")[1:] == ["by several predictions", "an integer from 1 to 4"]
    assert row(ended.stdout, "X-Replicate-Scheduler")[1:] == ["", "not supported"]
    assert len([cells for cells in rows(ended.stdout) if cells[0].startswith("X-")]) == 16
    assert "  interval: a number from 1 to 4" in ended.stdout.splitlines()


def test_a_configured_model_with_all_that_stands_around_it(
    program: Program, replicate: DemoReplicate, dify: DemoServer
) -> None:
    (program.directory / "images.toml").write_text(
        "enhance_prompt_app = 'poet'\nallow_unsafe_images = false\n[apps.poet]\napi_key = 'app-demo-chat'\n"
        "[images.models.old]\nmodel = 'stability-ai/stable-diffusion'\nupscaler = 'nightmareai/real-esrgan'\n"
    )
    arguments = ("models", "old", "--json", "--config", "images.toml")
    told = json.loads(program.run(*arguments, **images(replicate, DIFY_API_URL=dify.url)).stdout)
    assert told["model"] == "stability-ai/stable-diffusion"
    headers = {row["header"]: row for row in told["headers"]}
    assert headers["X-Replicate-Enhance-Prompt"]["by"] == "the app poet"
    assert headers["X-Replicate-Upscale"]["by"] == "the upscaler nightmareai/real-esrgan"
    assert headers["X-Replicate-Upscale-Factor"]["takes"] == "2 or 4"
    assert headers["X-Replicate-Style-Preset"]["takes"] is None
    assert headers["X-Replicate-Mask"]["note"] == "this model repaints black areas: the proxy inverts masks"
    assert {field["name"] for field in told["inputs"]} >= {"prompt", "init_image", "scheduler"}


def test_without_a_token_the_demo_is_asked_about_the_default(program: Program) -> None:
    ended = program.run("models")
    assert ended.returncode == 0
    assert "stability-ai/sdxl" in ended.stdout
    assert ended.stderr == "REPLICATE_API_TOKEN is not set, so this shows the demo.\n"


@pytest.mark.parametrize("name", ["nobody/nothing", "nonsense", VERSIONS["stability-ai/sdxl"]])
def test_a_model_that_cannot_be_asked_about(program: Program, replicate: DemoReplicate, name: str) -> None:
    ended = program.run("models", name, **images(replicate))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("Error: ")
    assert "Traceback" not in ended.stderr
