"""Map an image request onto the inputs that one Replicate model really has.

``plan_images`` looks every parameter up in the model's schema: under the first spelling that the model knows, in its
range, in its enum's own letters. A header or an ``input`` key that the model does not take is rejected by name (or
dropped, as settings say); fields of the OpenAI body, which clients always send, are dropped with a notice. Nothing
outside the model's schema is ever sent, since Replicate would silently drop it.
"""

from __future__ import annotations

from typing import Any

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.replicate.candidates import CANDIDATES, PROMPT_NAMES, factor_input, picture_input
from openai_dify_proxy.translate.replicate.counts import MAX_PICTURES, count_up, counts_of, number_in
from openai_dify_proxy.translate.replicate.headers import HEADER_OF
from openai_dify_proxy.translate.replicate.image_plan import Format, ImageParameters, ImagePlan, ImageRules
from openai_dify_proxy.translate.replicate.model_schema import ModelInput, ModelInputs, describe
from openai_dify_proxy.translate.replicate.safety import SWITCHES, is_more_permissive, most_permissive
from openai_dify_proxy.translate.replicate.sizes import place_size

PLACED_APART = frozenset(
    {
        "output_format",
        "output_quality",
        "seed",
        "prompt_strength",
        "num_outputs",
        "safety_checker",
        "enhance_prompt",
        "upscale",
        "init_image",
        "mask",
    }
)
"""Parameters with code of their own; the value of any other goes into an input as it is."""

PLAIN = tuple(parameter for parameter in CANDIDATES if parameter not in PLACED_APART)

OPENAI_FIELDS = ("quality", "style", "background")
"""Body fields that go into an input of the same name, where there is one that takes them."""

DEFAULT_FACTOR = 2


def plan_images(parameters: ImageParameters, model: ModelInputs, rules: ImageRules) -> ImagePlan:
    """How to make the pictures. Raises InvalidRequest whose ``param`` is the header or field at fault."""
    return _Planner(parameters, model, rules).plan()


class _Planner:
    """One plan in the making: ``inputs`` grows, ``notices`` collects what falls by the way."""

    def __init__(self, parameters: ImageParameters, model: ModelInputs, rules: ImageRules) -> None:
        self.parameters = parameters
        self.model = model
        self.rules = rules
        self.headers = parameters.headers
        self.inputs: dict[str, Any] = {}
        self.by_header: set[str] = set()
        self.notices: list[str] = []

    def plan(self) -> ImagePlan:
        self._refuse_contradictions()
        self._place_defaults()
        prompt = self.model.first(PROMPT_NAMES)
        if self.parameters.prompt is not None:
            self._place_prompt(self.parameters.prompt, prompt)
        for parameter in PLAIN:
            if parameter in self.headers:
                self._place(parameter, self.headers[parameter])
        self._place_body()
        init = self._place_picture("init_image") if self.parameters.has_init else None
        mask = self._place_beside(init)
        self._place_safety()
        enhance = self._place_enhancement()
        upscale = self._place_upscaling()
        output_format, convert = self._place_format()
        quality = self._place_quality()
        self._place_extra()
        counter = self._field("num_outputs")
        n = self._n(counter)
        predictions = self._fan_out(n, counter)
        self._require(init, mask)
        return ImagePlan(
            predictions=predictions,
            n=n,
            output_format=output_format,
            convert=convert,
            quality=quality,
            prompt_input=None if prompt is None else prompt.name,
            init_input=init,
            mask_input=mask,
            invert_mask=mask is not None and self.rules.mask_repaints == "black",
            enhance=enhance,
            upscale=upscale,
            upscale_factor=self.headers.get("upscale_factor"),
            notices=tuple(dict.fromkeys(self.notices)),
        )

    def _refuse_contradictions(self) -> None:
        for parameter in ("mask", "prompt_strength"):
            asked = parameter in self.headers
            if (asked or (parameter == "mask" and self.parameters.has_mask)) and not self.parameters.has_init:
                name = HEADER_OF[parameter] if asked else parameter
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
            self.by_header.add(field.name)

    def _unsupported(self, param: str, message: str | None = None) -> None:
        if self.rules.policy == "reject":
            raise InvalidRequest(
                message or f"This model does not take {param}. It takes: {describe(self.model)}.",
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
            self.inputs[field.name] = field.accept(prompt, "prompt")

    def _place_body(self) -> None:
        """OpenAI's own fields: where the model has a place for them, else dropped with a notice."""
        body = self.parameters.body
        for name in OPENAI_FIELDS:
            if name in body:
                self._try(name, name, body[name])
        if "user" in body:
            self._try("user", "user_id", body["user"])
        if "seed" in self.headers:
            self._place("seed", self.headers["seed"])
        elif "seed" in body:
            self._try("seed", "seed", body["seed"])
        if "size" in body:
            placed = place_size(str(body["size"]), self.model)
            if placed is None:
                self.notices.append("size")
            else:
                self.inputs.update(placed.inputs)
                if placed.altered:
                    self.notices.append("size")

    def _try(self, param: str, name: str, value: Any) -> None:
        if name in self.by_header:
            return
        field = self.model.fields.get(name)
        try:
            if field is not None:
                self.inputs[name] = field.accept(value, param)
                return
        except InvalidRequest:
            pass  # a value of OpenAI's that this model does not know
        self.notices.append(param)

    def _place_picture(self, parameter: str) -> ModelInput | None:
        field = picture_input(self.model, parameter)
        if field is None:
            self._unsupported(HEADER_OF[parameter])
            return None
        if parameter == "init_image" and self.parameters.has_more and field.kind != "array":
            self._unsupported("image[]", "This model takes one picture only.")
        if field.name == "image_prompt":
            self.notices.append("image_prompt is a reference for this model, not an initial image")
        return field

    def _place_beside(self, init: ModelInput | None) -> ModelInput | None:
        """The mask and the strength, which mean nothing where the initial picture had to be left out."""
        if init is None:
            for parameter in ("mask", "prompt_strength"):
                if parameter in self.headers or (parameter == "mask" and self.parameters.has_mask):
                    self._unsupported(HEADER_OF[parameter])
            return None
        if "prompt_strength" in self.headers:
            self._place("prompt_strength", self.headers["prompt_strength"])
        return self._place_picture("mask") if self.parameters.has_mask else None

    def _place_safety(self) -> None:
        """``yes`` is every model's own way; ``no`` takes what the model has for it, if the operator lets it."""
        wanted = self.headers.get("safety_checker")
        if wanted:
            self._check_safety()
        if wanted is not False:
            return
        name = HEADER_OF["safety_checker"]
        if not self.rules.allow_unsafe:
            raise InvalidRequest("This server does not switch safety checkers off.", param=name)
        field = self._field("safety_checker")
        if field is None:
            self._unsupported(name)
        else:
            self.inputs[field.name] = field.accept(most_permissive(field, self.parameters.has_init), name)

    def _check_safety(self) -> None:
        """Switch checkers on, and undo what an alias loosened."""
        for field in self.model.fields.values():
            if field.name in SWITCHES:
                checks = SWITCHES[field.name]
                if self.inputs.get(field.name, field.default) not in (None, checks):
                    self.inputs[field.name] = field.accept(checks, HEADER_OF["safety_checker"])
            elif field.name in self.inputs and is_more_permissive(field.name, self.inputs[field.name], field.default):
                del self.inputs[field.name]

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
        switch, factor = self.model.fields.get("upscale"), factor_input(self.model)
        wanted = self.headers.get("upscale_factor")
        if switch is None and factor is None:
            if not self.rules.can_upscale:
                self._unsupported(HEADER_OF["upscale"])
                return False
            return True
        if switch is not None:
            self.inputs["upscale"] = switch.accept(True, HEADER_OF["upscale"])
        if factor is None:
            if wanted is not None:
                self._unsupported(HEADER_OF["upscale_factor"])
        elif wanted is not None:
            self.inputs[factor.name] = factor.accept(wanted, HEADER_OF["upscale_factor"])
        elif switch is None and (number_in(self.inputs.get(factor.name, factor.default)) or 0) < DEFAULT_FACTOR:
            self.inputs[factor.name] = factor.accept(DEFAULT_FACTOR, HEADER_OF["upscale"])
        return False

    def _place_format(self) -> tuple[Format, bool]:
        """The format of the answer, and whether the model may give another.

        An alias's where nothing is asked, else PNG. A model that lacks the format is asked for the best that it has.
        """
        field = self._field("output_format")
        in_extra, body = self.parameters.extra.get("output_format"), self.parameters.body.get("output_format")
        asked = self.headers.get("output_format") or _FORMATS.get(str(body).lower())
        if body is not None and asked is None:
            self.notices.append("output_format")
        usual = None
        if field is not None:
            usual = _FORMATS.get(str(self.inputs.get(field.name)).lower())
            asked = _FORMATS.get(str(in_extra).lower()) or asked
        wanted: Format = asked or usual or "png"
        if field is None or (field.kind != "string" and not field.options):
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

    def _place_quality(self) -> int | None:
        """The quality of pictures that are converted here; it also goes to the model, where that has a place for it."""
        given = "output_quality" in self.headers
        quality = self.headers["output_quality"] if given else self.parameters.body.get("output_compression")
        if quality is None:
            return None
        if not 0 <= quality <= 100:  # only a body's: a header's is checked before
            self.notices.append("output_compression")
            return None
        field = self._field("output_quality")
        if field is not None and given:
            self._place("output_quality", quality)
        elif field is not None:
            self._try("output_compression", field.name, quality)
        return int(quality)

    def _place_extra(self) -> None:
        """The body's ``input``: whatever the schema has, by its own name; it wins over everything else."""
        for name, value in self.parameters.extra.items():
            param = f"input.{name}"
            field = self.model.fields.get(name)
            if field is None:
                self._unsupported(param)
            else:
                accepted, usual = field.accept(value, param), self.inputs.get(name, field.default)
                if not self.rules.allow_unsafe and is_more_permissive(name, accepted, usual):
                    raise InvalidRequest("This server does not let requests loosen safety checkers.", param=param)
                self.inputs[name] = accepted

    # How many

    def _n(self, counter: ModelInput | None) -> int:
        """How many pictures are answered: by the body's ``input``, the header, ``n``, or what an alias sets."""
        given = None if counter is None else number_in(self.inputs.get(counter.name))
        if counter is not None and counter.name in self.parameters.extra:
            if given is None or not 1 <= given <= MAX_PICTURES:
                param = f"input.{counter.name}"
                raise InvalidRequest(f"{param} must be a number of pictures from 1 to {MAX_PICTURES}.", param=param)
            return given
        n = self.headers.get("num_outputs", self.parameters.n)
        return int(n if n is not None else given or 1)

    def _fan_out(self, n: int, counter: ModelInput | None) -> tuple[dict[str, Any], ...]:
        """The inputs of each prediction: as many pictures at once as the model gives, with seeds counted up."""
        most, tell = 1, False
        counts = counts_of(counter) if counter is not None else []
        if counter is not None and counter.name in self.parameters.extra:
            most = n
            self._ask_for_group(self.inputs, counter, n)
        elif counter is not None and counts:
            usual = self.inputs.get(counter.name, counter.default)
            most, tell = counts[-1], n > 1 or "num_outputs" in self.headers or usual not in (None, 1)
        seed = self._field("seed")
        predictions = []
        for begin in range(0, n, most):
            inputs = dict(self.inputs)
            if counter is not None and tell:
                count = min(count for count in counts if count >= min(most, n - begin))
                self._set_count(inputs, counter, count)
            if begin and seed is not None and seed.name in inputs:
                inputs[seed.name] = count_up(inputs[seed.name], begin, seed)
            predictions.append(inputs)
        return tuple(predictions)

    def _set_count(self, inputs: dict[str, Any], counter: ModelInput, count: int) -> None:
        inputs[counter.name] = counter.accept(count, HEADER_OF["num_outputs"])
        self._ask_for_group(inputs, counter, count)

    def _ask_for_group(self, inputs: dict[str, Any], counter: ModelInput, count: int) -> None:
        group = self.model.fields.get("sequential_image_generation")
        if counter.name == "max_images" and count > 1 and group is not None and group.name not in self.parameters.extra:
            inputs[group.name] = group.accept("auto", HEADER_OF["num_outputs"])

    def _require(self, init: ModelInput | None, mask: ModelInput | None) -> None:
        placed = {field.name for field in (init, mask) if field is not None} | self.inputs.keys()
        for field in self.model.fields.values():
            if field.required and field.default is None and field.name not in placed:
                param = "prompt" if field.name in PROMPT_NAMES else _header_for(field.name) or f"input.{field.name}"
                raise InvalidRequest(
                    f"This model needs '{field.name}' ({field.takes}).", param=param, code="missing_required_parameter"
                )


def _header_for(name: str) -> str | None:
    return next((HEADER_OF[parameter] for parameter in ("init_image", "mask") if name in CANDIDATES[parameter]), None)


_FORMATS: dict[str, Format] = {"png": "png", "jpeg": "jpg", "jpg": "jpg", "webp": "webp"}
_SPELLINGS: dict[str, tuple[str, ...]] = {"png": ("png",), "jpg": ("jpg", "jpeg"), "webp": ("webp",)}
