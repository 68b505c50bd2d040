"""What a client asked for, as the inputs that one Replicate model really has.

``plan_images`` looks every wish up in the model's schema: under the first spelling that the model knows, in its range,
in its enum's own letters. A header or an ``input`` key that the model does not take is refused by name (or dropped,
as settings say); fields of the OpenAI body, which clients always send, are dropped with a notice. Nothing outside the
model's schema is ever sent, since Replicate would drop it without a word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.image_headers import HEADER_OF
from openai_dify_proxy.translate.image_sizes import place_size
from openai_dify_proxy.translate.model_schema import ModelInput, ModelInputs, describe

CANDIDATES: dict[str, tuple[str, ...]] = {
    "output_format": ("output_format",),
    "output_quality": ("output_quality", "output_compression"),
    "scheduler": ("scheduler", "sampler"),
    "num_inference_steps": ("num_inference_steps", "steps", "num_steps"),
    "guidance_scale": ("guidance_scale", "guidance", "cfg_scale", "cfg"),
    "seed": ("seed",),
    "negative_prompt": ("negative_prompt",),
    "prompt_strength": ("prompt_strength", "strength"),
    "num_outputs": ("num_outputs", "num_images", "number_of_images", "num_images_per_prompt", "max_images"),
    "safety_checker": ("disable_safety_checker", "safety_tolerance", "safety_filter_level"),
    "enhance_prompt": ("prompt_upsampling", "enhance_prompt", "magic_prompt_option"),
    "upscale": ("upscale", "upscale_factor", "scale"),
    "style_preset": ("style_preset", "style", "style_type"),
    "init_image": ("init_image", "image", "input_image", "img", "image_input", "input_images", "image_prompt"),
    "mask": ("mask", "mask_image"),
}
"""How models spell each parameter; the first that a model has is the one."""

PROMPT_NAMES = ("prompt", "text")

PLAIN = ("scheduler", "num_inference_steps", "guidance_scale", "negative_prompt", "style_preset")
"""Headers whose value goes into an input as it is."""

OPENAI_FIELDS = ("quality", "style", "background")
"""Body fields that go into an input of the same name, where there is one that takes them."""

Policy = Literal["reject", "warn", "drop"]
Format = Literal["png", "jpg", "webp"]

MAX_PICTURES = 10


class ImageWish(Struct, frozen=True, kw_only=True):
    """What a request asks for, whatever the model.

    ``headers`` are values by the specification's parameter name; ``body`` the OpenAI fields that were given;
    ``extra`` the body's ``input`` object. ``has_init`` and ``has_mask`` tell of pictures, which are placed by
    ``ImagePlan.init_input`` and ``mask_input``.
    """

    prompt: str | None
    n: int | None = None
    headers: Mapping[str, Any] = {}
    body: Mapping[str, Any] = {}
    extra: Mapping[str, Any] = {}
    has_init: bool = False
    has_mask: bool = False


class ImageRules(Struct, frozen=True, kw_only=True):
    """What the settings say: of unknown parameters, of unsafe pictures, and what an alias adds."""

    policy: Policy = "reject"
    allow_unsafe: bool = True
    defaults: Mapping[str, Any] = {}
    can_enhance: bool = False
    can_upscale: bool = False


class ImagePlan(Struct, frozen=True, kw_only=True):
    """What to do: the inputs of each prediction, and what happens around them.

    ``prompt_input``, ``init_input`` and ``mask_input`` name the inputs that take the prompt and the pictures.
    ``enhance`` and ``upscale`` are asked for where the model cannot do them itself; ``upscale_factor`` is None for the
    upscaler's own. ``convert`` tells that the model may give another format than ``output_format``. ``notices`` name
    what was dropped.
    """

    predictions: tuple[dict[str, Any], ...]
    n: int
    output_format: Format
    convert: bool
    quality: int | None = None
    prompt_input: str | None = None
    init_input: ModelInput | None = None
    mask_input: ModelInput | None = None
    invert_mask: bool = False
    enhance: bool = False
    upscale: bool = False
    upscale_factor: int | None = None
    notices: tuple[str, ...] = ()


def plan_images(wish: ImageWish, model: ModelInputs, rules: ImageRules) -> ImagePlan:
    """How to make the pictures. Raises InvalidRequest whose ``param`` is the header or field at fault."""
    return _Planner(wish, model, rules).plan()


class _Planner:
    """One plan in the making: ``inputs`` grows, ``notices`` collects what falls by the way."""

    def __init__(self, wish: ImageWish, model: ModelInputs, rules: ImageRules) -> None:
        self.wish = wish
        self.model = model
        self.rules = rules
        self.headers = wish.headers
        self.inputs: dict[str, Any] = {}
        self.notices: list[str] = []

    def plan(self) -> ImagePlan:
        self._refuse_contradictions()
        self._place_defaults()
        prompt = self.model.first(PROMPT_NAMES)
        if self.wish.prompt is not None:
            self._place_prompt(self.wish.prompt, prompt)
        for parameter in PLAIN:
            if parameter in self.headers:
                self._place(parameter, self.headers[parameter])
        self._place_body()
        init = self._place_picture("init_image") if self.wish.has_init else None
        mask = self._place_picture("mask") if self.wish.has_mask else None
        if "prompt_strength" in self.headers:
            self._place("prompt_strength", self.headers["prompt_strength"])
        self._place_safety()
        enhance = self._place_enhancement()
        upscale = self._place_upscaling()
        output_format, convert = self._place_format()
        self._place_extra()
        predictions = self._fan_out()
        self._require(init, mask)
        return ImagePlan(
            predictions=predictions,
            n=self._n(),
            output_format=output_format,
            convert=convert,
            quality=self._quality(),
            prompt_input=None if prompt is None else prompt.name,
            init_input=init,
            mask_input=mask,
            invert_mask=mask is not None and mask.black_repaints,
            enhance=enhance,
            upscale=upscale,
            upscale_factor=self.headers.get("upscale_factor"),
            notices=tuple(dict.fromkeys(self.notices)),
        )

    def _refuse_contradictions(self) -> None:
        for parameter in ("mask", "prompt_strength"):
            if (parameter in self.headers or (parameter == "mask" and self.wish.has_mask)) and not self.wish.has_init:
                name = HEADER_OF[parameter]
                raise InvalidRequest(
                    f"{name} needs an initial image: send X-Replicate-Init-Image, or use /v1/images/edits.", param=name
                )
        if "upscale_factor" in self.headers and not self.headers.get("upscale"):
            name = HEADER_OF["upscale_factor"]
            raise InvalidRequest(f"{name} has no meaning without X-Replicate-Upscale: yes.", param=name)

    # Placing

    def _field(self, parameter: str) -> ModelInput | None:
        return self.model.first(CANDIDATES[parameter])

    def _place(self, parameter: str, value: Any) -> None:
        """A header's value into the model's input for it."""
        field = self._field(parameter)
        if field is None:
            self._unsupported(HEADER_OF[parameter])
        else:
            self.inputs[field.name] = field.accept(value, HEADER_OF[parameter])

    def _unsupported(self, param: str) -> None:
        if self.rules.policy == "reject":
            raise InvalidRequest(
                f"This model does not take {param}. It takes: {describe(self.model)}.",
                param=param,
                code="unsupported_parameter",
            )
        if self.rules.policy == "warn":
            self.notices.append(param)

    def _place_defaults(self) -> None:
        """What an alias adds; the operator named the inputs, so one that the model lacks is a mistake worth a word."""
        for name, value in self.rules.defaults.items():
            field = self.model.fields.get(name)
            if field is None:
                self.notices.append(f"input.{name}")
            else:
                self.inputs[name] = field.accept(value, f"input.{name}")

    def _place_prompt(self, prompt: str, field: ModelInput | None) -> None:
        if field is None:
            self.notices.append("prompt")
        else:
            self.inputs[field.name] = prompt

    def _place_body(self) -> None:
        """OpenAI's own fields: where the model has a place for them, else dropped with a notice."""
        body = self.wish.body
        for name in OPENAI_FIELDS:
            if name in body:
                self._try(name, name, body[name])
        if "user" in body and "user_id" in self.model.fields:
            self.inputs["user_id"] = body["user"]
        seed = self.headers.get("seed", body.get("seed"))
        if "seed" in self.headers:
            self._place("seed", seed)
        elif seed is not None:
            self._try("seed", "seed", seed)
        if "size" in body:
            placed = place_size(str(body["size"]), self.model)
            if placed is None:
                self.notices.append("size")
            else:
                self.inputs.update(placed)

    def _try(self, param: str, name: str, value: Any) -> None:
        field = self.model.fields.get(name)
        try:
            if field is not None:
                self.inputs[name] = field.accept(value, param)
                return
        except InvalidRequest:
            pass  # a value of OpenAI's that this model does not know
        self.notices.append(param)

    def _place_picture(self, parameter: str) -> ModelInput | None:
        field = self._field(parameter)
        if field is None:
            self._unsupported(HEADER_OF[parameter])
        elif field.name == "image_prompt":
            self.notices.append("image_prompt is a reference for this model, not an initial image")
        return field

    def _place_safety(self) -> None:
        """``yes`` is every model's own way; ``no`` takes what the model has for it, if the operator lets it."""
        if self.headers.get("safety_checker") is not False:
            return
        name = HEADER_OF["safety_checker"]
        if not self.rules.allow_unsafe:
            raise InvalidRequest("This server does not switch safety checkers off.", param=name)
        field = self._field("safety_checker")
        if field is None:
            self._unsupported(name)
        elif field.name == "disable_safety_checker":
            self.inputs[field.name] = True
        elif field.name == "safety_tolerance" and field.maximum is not None:
            highest = min(field.maximum, _with_picture(field)) if self.wish.has_init else field.maximum
            self.inputs[field.name] = int(highest)
        else:
            self.inputs[field.name] = field.accept("block_only_high", name)

    def _place_enhancement(self) -> bool:
        """Whether the prompt must be rewritten before, since the model cannot do it."""
        wanted = self.headers.get("enhance_prompt")
        field = self._field("enhance_prompt")
        if wanted is None or (field is None and not wanted):
            return False
        if field is not None:
            value = wanted if field.kind == "boolean" else "On" if wanted else "Off"
            self.inputs[field.name] = field.accept(value, HEADER_OF["enhance_prompt"])
            return False
        if not self.rules.can_enhance:
            self._unsupported(HEADER_OF["enhance_prompt"])
            return False
        return True

    def _place_upscaling(self) -> bool:
        """Whether the pictures must be upscaled after, since the model cannot do it."""
        if not self.headers.get("upscale"):
            return False
        switch, factor = self.model.fields.get("upscale"), self.model.first(("upscale_factor", "scale"))
        wanted = self.headers.get("upscale_factor")
        if switch is None and factor is None:
            if not self.rules.can_upscale:
                self._unsupported(HEADER_OF["upscale"])
                return False
            return True
        if switch is not None:
            self.inputs["upscale"] = switch.accept(True, HEADER_OF["upscale"])
        if wanted is not None:
            if factor is None:
                self._unsupported(HEADER_OF["upscale_factor"])
            else:
                self.inputs[factor.name] = factor.accept(wanted, HEADER_OF["upscale_factor"])
        return False

    def _place_format(self) -> tuple[Format, bool]:
        """The format of the answer, and whether the model may give another.

        PNG where nothing is asked. A model that lacks the format is asked for the best that it has.
        """
        asked = self.headers.get("output_format") or _FORMATS.get(str(self.wish.body.get("output_format")))
        if "output_format" in self.wish.body and asked is None:
            self.notices.append("output_format")
        wanted: Format = asked or "png"
        field = self._field("output_format")
        if field is None:
            return wanted, True
        known = {str(option).lower(): option for option in field.options}
        for name in _SPELLINGS[wanted]:
            if name in known or not known:
                self.inputs[field.name] = known.get(name, name)
                return wanted, False
        best = next((known[name] for name in ("png", "webp", "jpg", "jpeg") if name in known), None)
        if best is not None:
            self.inputs[field.name] = best
        return wanted, True

    def _quality(self) -> int | None:
        quality = self.headers.get("output_quality", self.wish.body.get("output_compression"))
        return quality if isinstance(quality, int) and 0 <= quality <= 100 else None

    def _place_extra(self) -> None:
        """The body's ``input``: whatever the schema has, by its own name; it wins over everything else."""
        quality, field = self._quality(), self._field("output_quality")
        if quality is not None and field is not None:
            self.inputs[field.name] = field.accept(quality, HEADER_OF["output_quality"])
        for name, value in self.wish.extra.items():
            extra = self.model.fields.get(name)
            if extra is None:
                self._unsupported(f"input.{name}")
            else:
                self.inputs[name] = extra.accept(value, f"input.{name}")

    # How many

    def _n(self) -> int:
        n = self.headers.get("num_outputs", self.wish.n)
        return 1 if n is None else int(n)

    def _fan_out(self) -> tuple[dict[str, Any], ...]:
        """The inputs of each prediction: as many pictures at once as the model gives, with seeds counted up."""
        n = self._n()
        field = self._field("num_outputs")
        most = 1 if field is None else int(field.maximum or MAX_PICTURES)
        predictions = []
        for begin in range(0, n, most):
            inputs = dict(self.inputs)
            if field is not None and (n > 1 or "num_outputs" in self.headers):
                inputs[field.name] = min(most, n - begin)
                if field.name == "max_images" and "sequential_image_generation" in self.model.fields and n > 1:
                    inputs["sequential_image_generation"] = "auto"
            seed = self._field("seed")
            if seed is not None and isinstance(inputs.get(seed.name), int):
                inputs[seed.name] = _count_up(inputs[seed.name], begin, seed)
            predictions.append(inputs)
        return tuple(predictions)

    def _require(self, init: ModelInput | None, mask: ModelInput | None) -> None:
        placed = {field.name for field in (init, mask) if field is not None} | self.inputs.keys()
        for field in self.model.fields.values():
            if field.required and field.default is None and field.name not in placed:
                param = "prompt" if field.name == "prompt" else _header_for(field.name) or f"input.{field.name}"
                raise InvalidRequest(
                    f"This model needs '{field.name}' ({field.takes}).", param=param, code="missing_required_parameter"
                )


def _count_up(seed: int, by: int, field: ModelInput) -> int:
    """``seed + by``, begun anew at zero where the model's range ends."""
    return seed + by if field.maximum is None else int((seed + by) % (field.maximum + 1))


def _header_for(name: str) -> str | None:
    return next((HEADER_OF[parameter] for parameter in ("init_image", "mask") if name in CANDIDATES[parameter]), None)


_MOST_WITH_PICTURE = re.compile(
    r"(\d+) is (?:currently )?the maximum allowed when (?:an )?input images?", re.IGNORECASE
)


def _with_picture(field: ModelInput) -> float:
    """Some models take a lower tolerance beside an input picture, and say so only in words."""
    said = _MOST_WITH_PICTURE.search(field.description)
    return float(said[1]) if said else field.maximum or 0


_FORMATS: dict[str, Format] = {"png": "png", "jpeg": "jpg", "jpg": "jpg", "webp": "webp"}
_SPELLINGS: dict[str, tuple[str, ...]] = {"png": ("png",), "jpg": ("jpg", "jpeg"), "webp": ("webp",)}
