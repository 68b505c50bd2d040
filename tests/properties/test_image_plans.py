"""For any parameters and any schema, plans contain only inputs that the schema allows."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.replicate.candidates import CANDIDATES
from openai_dify_proxy.translate.replicate.headers import HEADERS, OUTPUT_FORMATS, SCHEDULERS
from openai_dify_proxy.translate.replicate.image_plan import ImageParameters, ImagePlan, ImageRules
from openai_dify_proxy.translate.replicate.mapping import OPENAI_FIELDS, plan_images
from openai_dify_proxy.translate.replicate.model_schema import read_model_inputs
from tests.unit.translate.replicate.replicate_models import SCHEMAS

Json = dict[str, Any]

LOOSE = {
    "disable_safety_checker": True,
    "safety_tolerance": 6,
    "safety_filter_level": "block_only_high",
    "moderation": "low",
}
"""Inputs that loosen a model's safety, and the values that do so."""

NAMES = sorted(
    {name for names in CANDIDATES.values() for name in names}
    | {"prompt", "text", "width", "height", "image_width", "image_height", "aspect_ratio", "size", "resolution"}
    | {"image_size", "user_id", "moderation", "sequential_image_generation", "tile", *OPENAI_FIELDS}
)
WORDS = ("png", "jpeg", "DDIM", "On", "Off", "auto", "custom", "1:1", "16:9", "512x512", "0x0", "2", "anime", "None")

words = st.sampled_from(WORDS)
small = st.integers(-3, 12)
bounds = small | st.sampled_from([0.5, 100, 1440, 2147483647])
plain_values = words | small | st.booleans() | st.floats(allow_nan=False, width=32) | st.none() | st.text(max_size=5)
values = plain_values | st.lists(words, max_size=2) | st.dictionaries(words, small, max_size=2)


@st.composite
def properties(draw: st.DrawFn) -> Json:
    """One input of a schema; only numbers have bounds, and the lower one does not exceed the upper one."""
    body: Json = {"type": draw(st.sampled_from(["string", "integer", "number", "boolean", "array", "object"]))}
    if body["type"] in ("integer", "number"):
        low, high = sorted((draw(bounds), draw(bounds)))
        body |= draw(st.sampled_from([{}, {"minimum": low}, {"maximum": high}, {"minimum": low, "maximum": high}]))
    if draw(st.integers(0, 3)) == 0:
        body = {"enum": draw(st.lists(words | small, min_size=1, max_size=4, unique_by=str))}
    if draw(st.booleans()):
        body["description"] = draw(
            st.sampled_from(["Black pixels are inpainted", "a multiple of 32", "2 is the maximum"])
        )
    return body


@st.composite
def invented_schemas(draw: st.DrawFn) -> Json:
    names = draw(st.lists(st.sampled_from(NAMES), max_size=12, unique=True))
    inputs = {name: draw(properties()) for name in names}
    required = draw(st.lists(st.sampled_from(names), max_size=2)) if names else []
    return {"components": {"schemas": {"Input": {"properties": inputs, "required": required}}}}


schemas = st.sampled_from(sorted(SCHEMAS)).map(SCHEMAS.__getitem__) | invented_schemas()

HEADER_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "output_format": st.sampled_from(OUTPUT_FORMATS),
    "output_quality": st.integers(0, 100),
    "scheduler": st.sampled_from(SCHEDULERS),
    "num_inference_steps": st.integers(1, 500),
    "guidance_scale": st.floats(1, 20),
    "seed": st.integers(0, 10) | st.integers(0, 10**20 - 1),
    "negative_prompt": st.text(min_size=1, max_size=5),
    "prompt_strength": st.floats(0, 1),
    "num_outputs": st.integers(1, 4),
    "safety_checker": st.booleans(),
    "enhance_prompt": st.booleans(),
    "upscale": st.booleans(),
    "upscale_factor": st.sampled_from([2, 4]),
    "style_preset": words,
    "init_image": st.just("https://example.org/a.png"),
    "mask": st.just("https://example.org/m.png"),
}
BODY_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "size": st.sampled_from(["auto", "1024x1024", "1x9999", "large", "1536x1024"]),
    "quality": words,
    "style": words,
    "background": words,
    "output_format": st.sampled_from(["png", "jpeg", "webp", "gif"]),
    "output_compression": st.integers(-5, 120),
    "user": st.text(max_size=5),
    "seed": st.integers(-5, 20) | st.integers(),
}


def some(strategies: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Json]:
    return st.fixed_dictionaries({}, optional=strategies)


@st.composite
def image_parameters(draw: st.DrawFn) -> ImageParameters:
    headers = draw(some(HEADER_VALUES))
    return ImageParameters(
        prompt=draw(st.none() | st.text(min_size=1, max_size=9)),
        n=draw(st.none() | st.integers(1, 10)),
        headers=headers,
        unknown=draw(st.sampled_from([(), (), ("X-Replicate-Sede",)])),
        body=draw(some(BODY_VALUES)),
        extra=draw(st.dictionaries(st.sampled_from(NAMES), values, max_size=2)),
        has_init="init_image" in headers or draw(st.booleans()),
        more_param=draw(st.sampled_from([None, "image[]"])),
        has_mask="mask" in headers,
    )


rules = st.builds(
    ImageRules,
    policy=st.sampled_from(["reject", "warn", "drop"]),
    allow_unsafe=st.booleans(),
    can_enhance=st.booleans(),
    can_upscale=st.booleans(),
)


def planned(parameters: ImageParameters, schema: Json, rule: ImageRules) -> ImagePlan | InvalidRequest:
    try:
        return plan_images(parameters, read_model_inputs(schema), rule)
    except InvalidRequest as refusal:
        return refusal


def described(schema: Json) -> dict[str, Json]:
    """Resolve the enums of the inputs, independently of the proxy's code."""
    components = schema["components"]["schemas"]
    flat = {}
    for name, body in components["Input"]["properties"].items():
        references = [part["$ref"].rpartition("/")[2] for part in body.get("allOf", [])]
        flat[name] = {key: value for part in references for key, value in components[part].items()} | body
    return flat


KINDS: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}


def fits(value: Any, body: Json) -> bool:
    if "enum" in body:
        return any(value == option and type(value) is type(option) for option in body["enum"])
    if isinstance(value, bool) is not (body["type"] == "boolean") or not isinstance(value, KINDS[body["type"]]):
        return False
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if not isinstance(value, (int, float)):
        return True
    if body["type"] == "integer" and not -(2**63) <= value < 2**63:
        return False
    return bool(body.get("minimum", -math.inf) <= value <= body.get("maximum", math.inf))


@given(image_parameters(), schemas, rules)
def test_only_inputs_that_the_schema_allows_are_sent(
    parameters: ImageParameters, schema: Json, rule: ImageRules
) -> None:
    plan = planned(parameters, schema, rule)
    if isinstance(plan, InvalidRequest):
        return
    inputs = described(schema)
    for prediction in plan.predictions:
        assert {name: value for name, value in prediction.items() if not fits(value, inputs.get(name, {}))} == {}
    for field in (plan.init_input, plan.mask_input):
        assert field is None or (field.name in inputs and "enum" not in inputs[field.name])
    required = set(schema["components"]["schemas"]["Input"].get("required", []))
    placed = {field.name for field in (plan.init_input, plan.mask_input) if field is not None}
    for prediction in plan.predictions:
        assert {name for name in required if "default" not in inputs[name]} <= prediction.keys() | placed


@given(image_parameters(), schemas, rules)
def test_rejections_name_the_param_at_fault(parameters: ImageParameters, schema: Json, rule: ImageRules) -> None:
    refusal = planned(parameters, schema, rule)
    if not isinstance(refusal, InvalidRequest):
        return
    headers = {header.name for header in HEADERS if header.parameter in parameters.headers}
    extras = {f"input.{name}" for name in parameters.extra}
    missing = refusal.code == "missing_required_parameter"
    pictures = {"mask", "image[]", "X-Replicate-Init-Image", "X-Replicate-Mask"}
    bad_size = {"size"} if parameters.body.get("size") == "large" else set()
    named = headers | extras | pictures | bad_size | {"prompt", *parameters.unknown}
    assert refusal.param in named or (missing and refusal.param), refusal.param
    if rule.policy != "reject":
        assert refusal.code != "unsupported_parameter"


@given(image_parameters(), schemas, rules)
def test_dropped_parameters_are_reported_if_the_policy_says_so(
    parameters: ImageParameters, schema: Json, rule: ImageRules
) -> None:
    plan = planned(parameters, schema, rule)
    if isinstance(plan, InvalidRequest):
        return
    inputs = described(schema)
    unknown = {f"input.{name}" for name in parameters.extra if name not in inputs}
    assert rule.policy != "reject" or not unknown
    assert (unknown <= set(plan.notices)) is (rule.policy == "warn" or not unknown)
    assert len(set(plan.notices)) == len(plan.notices)


counters = st.sampled_from(CANDIDATES["num_outputs"])


@given(counters, properties(), properties(), st.integers(1, 10), st.integers(-3, 12) | st.integers(0, 2**64))
def test_the_requested_number_of_pictures_with_increasing_seeds(
    counter: str, count: Json, seed_body: Json, n: int, seed: int
) -> None:
    inputs = {"prompt": {"type": "string"}, counter: count, "seed": seed_body}
    schema = {"components": {"schemas": {"Input": {"properties": inputs}}}}
    plan = planned(ImageParameters(prompt="x", n=n, headers={"seed": seed}), schema, ImageRules())
    if isinstance(plan, InvalidRequest):
        assert plan.param == "X-Replicate-Seed"
        assert not fits(seed, seed_body)
        return
    counts = [int(prediction.get(counter, 1)) for prediction in plan.predictions]
    assert plan.n == n
    assert n <= sum(counts)
    assert all(count > 0 for count in counts)
    assert sum(counts[:-1]) < n, "one prediction too many"
    seeds = [prediction["seed"] for prediction in plan.predictions]
    assert all(fits(value, seed_body) for value in seeds)
    if seed < 0:
        assert set(seeds) == {seed} or "enum" in seed_body
    elif "enum" not in seed_body and fits(seed + n + 9, seed_body):
        assert seeds == [seed + sum(counts[:number]) for number in range(len(counts))]


@given(
    image_parameters(),
    st.sampled_from(sorted(SCHEMAS)),
    rules,
    some({name: st.just(value) for name, value in LOOSE.items()}),
)
def test_a_strict_server_loosens_nothing(parameters: ImageParameters, name: str, rule: ImageRules, loose: Json) -> None:
    """This uses real models, since the names may have other meanings elsewhere."""
    parameters = replace(parameters, extra=loose)
    plan = planned(parameters, SCHEMAS[name], replace(rule, allow_unsafe=False))
    if isinstance(plan, InvalidRequest):
        return
    inputs = described(SCHEMAS[name])
    for prediction in plan.predictions:
        loosened = {name for name, value in LOOSE.items() if prediction.get(name) == value}
        assert all(inputs[name].get("default") == LOOSE[name] for name in loosened)
