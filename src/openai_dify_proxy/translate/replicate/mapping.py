"""Maps an image request to the inputs of one Replicate model.

``plan_images`` looks up every parameter in the model's schema, under the first name that the model has, and validates
the value. A header or a key of ``input`` that the model does not support is rejected by name, or dropped if the
settings say so. Fields of the OpenAI body, which many clients always send, are dropped with a notice. Only inputs in
the schema are sent, since Replicate silently drops others.
"""

from __future__ import annotations

from typing import Any

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.pictures.formats import OutputFormat
from openai_dify_proxy.translate.replicate.candidates import CANDIDATES, PROMPT_NAMES, factor_input, picture_input
from openai_dify_proxy.translate.replicate.conflicts import FORMATS, conflict, reject_conflicts, reject_incomplete
from openai_dify_proxy.translate.replicate.counts import MAX_PICTURES, count_up, counts_of, number_in
from openai_dify_proxy.translate.replicate.headers import HEADER_OF
from openai_dify_proxy.translate.replicate.image_plan import ImageParameters, ImagePlan, ImageRules
from openai_dify_proxy.translate.replicate.model_schema import ModelInput, ModelInputs, describe
from openai_dify_proxy.translate.replicate.safety import SWITCHES, is_more_permissive, most_permissive
from openai_dify_proxy.translate.replicate.sizes import parse_size, place_size
from openai_dify_proxy.translate.replicate.unknown_headers import explain_unknown_header

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
"""Parameters with dedicated code. The value of any other is copied to an input."""

PLAIN = tuple(parameter for parameter in CANDIDATES if parameter not in PLACED_APART)

OPENAI_FIELDS = ("quality", "style", "background")
"""Body fields that are copied to an input of the same name, if it accepts the value."""

DEFAULT_FACTOR = 2


def plan_images(parameters: ImageParameters, model: ModelInputs, rules: ImageRules) -> ImagePlan:
    """Return the plan for a request. Raises InvalidRequest, with the header or field at fault as ``param``."""
    return _Planner(parameters, model, rules).plan()


class _Planner:
    """Builds one plan. ``by_header`` maps inputs to the headers' parameters, ``notices`` lists dropped parameters."""

    def __init__(self, parameters: ImageParameters, model: ModelInputs, rules: ImageRules) -> None:
        self.parameters = parameters
        self.model = model
        self.rules = rules
        self.headers = parameters.headers
        self.inputs: dict[str, Any] = {}
        self.by_header: dict[str, str] = {}
        self.notices: list[str] = []

    def plan(self) -> ImagePlan:
        reject_conflicts(self.parameters)
        reject_incomplete(self.parameters)
        for name in self.parameters.unknown:
            self._unsupported(name, explain_unknown_header(name, self.model))
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

    # Placing

    def _field(self, parameter: str) -> ModelInput | None:
        return self.model.first(CANDIDATES[parameter])

    def _place(self, parameter: str, value: Any) -> None:
        """Set the model's input for a header."""
        field = self._field(parameter)
        if field is None:
            self._unsupported(HEADER_OF[parameter])
        else:
            self._set(field, value, parameter)

    def _set(self, field: ModelInput, value: Any, parameter: str) -> None:
        self.inputs[field.name] = field.accept(value, HEADER_OF[parameter])
        self.by_header[field.name] = parameter

    def _unsupported(self, param: str, message: str | None = None) -> None:
        if self.rules.policy == "reject":
            raise InvalidRequest(
                message or f"This model does not support {param}. Its inputs are: {describe(self.model)}.",
                param=param,
                code="unsupported_parameter",
            )
        if self.rules.policy == "warn":
            self.notices.append(param)

    def _unavailable(self, parameter: str, setting: str) -> None:
        """Report a header that the proxy could implement for the model, with a further setting."""
        name = HEADER_OF[parameter]
        self._unsupported(name, f"This model does not support {name}. The operator of this server can set {setting}.")

    def _place_defaults(self) -> None:
        """Set the inputs of an alias. One that the model lacks is a mistake of the operator, and gets a notice."""
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
        """Set the inputs for OpenAI's fields. Fields without an input are dropped with a notice."""
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
            self._place_size(str(body["size"]))

    def _place_size(self, text: str) -> None:
        size = parse_size(text)
        if size is None:
            return
        placed = place_size(size, self.model)
        if placed is not None:
            self.inputs.update(placed.inputs)
        if placed is None or placed.altered:
            self.notices.append("size")

    def _try(self, param: str, name: str, value: Any) -> None:
        """Set an input for a body field, or drop the field with a notice if the model does not accept the value."""
        field = self.model.fields.get(name)
        try:
            accepted = None if field is None else field.accept(value, param)
        except InvalidRequest:
            accepted = None
        if accepted is None:
            self.notices.append(param)
        elif name not in self.by_header:
            self.inputs[name] = accepted
        elif accepted != self.inputs[name]:
            raise conflict(self.parameters, self.by_header[name], param, value)

    def _place_picture(self, parameter: str) -> ModelInput | None:
        field = picture_input(self.model, parameter)
        if field is None:
            self._unsupported(self.parameters.sent_as(parameter))
            return None
        more = self.parameters.more_param if parameter == "init_image" and field.kind != "array" else None
        if more is not None:
            self._unsupported(more, "This model accepts one initial image only. Send a single image.")
        if field.name == "image_prompt":
            self.notices.append("image_prompt is a reference for this model, not an initial image")
        return field

    def _place_beside(self, init: ModelInput | None) -> ModelInput | None:
        """Place the mask and the strength, which are unsupported if the initial image is."""
        if init is None:
            for parameter in ("mask", "prompt_strength"):
                if parameter in self.headers or (parameter == "mask" and self.parameters.has_mask):
                    self._unsupported(self.parameters.sent_as(parameter))
            return None
        if "prompt_strength" in self.headers:
            self._place("prompt_strength", self.headers["prompt_strength"])
        return self._place_picture("mask") if self.parameters.has_mask else None

    def _place_safety(self) -> None:
        """Apply the header. ``yes`` is the default of all models; ``no`` requires an input and ALLOW_UNSAFE_IMAGES."""
        enabled = self.headers.get("safety_checker")
        if enabled:
            self._check_safety()
        if enabled is not False:
            return
        name = HEADER_OF["safety_checker"]
        if not self.rules.allow_unsafe:
            raise InvalidRequest(
                "This server does not allow requests to disable safety checkers. Omit the header.", param=name
            )
        field = self._field("safety_checker")
        if field is None:
            self._unsupported(name)
        else:
            self._set(field, most_permissive(field, self.parameters.has_init), "safety_checker")

    def _check_safety(self) -> None:
        """Switch checkers on, and remove more permissive values that an alias has set."""
        for field in self.model.fields.values():
            if field.name in SWITCHES:
                checks = SWITCHES[field.name]
                if self.inputs.get(field.name, field.default) not in (None, checks):
                    self._set(field, checks, "safety_checker")
            elif field.name in self.inputs and is_more_permissive(field.name, self.inputs[field.name], field.default):
                del self.inputs[field.name]

    def _place_enhancement(self) -> bool:
        """Return whether the proxy must rewrite the prompt, since the model cannot."""
        enabled = self.headers.get("enhance_prompt")
        field = self._field("enhance_prompt")
        if enabled is None or (field is None and not enabled):
            return False
        if field is not None:
            self._set(field, enabled if field.kind == "boolean" else "On" if enabled else "Off", "enhance_prompt")
            return False
        if not self.rules.can_enhance:
            self._unavailable("enhance_prompt", "ENHANCE_PROMPT_APP to a Dify app that rewrites prompts")
        return self.rules.can_enhance

    def _place_upscaling(self) -> bool:
        """Return whether the proxy must upscale the pictures, since the model cannot."""
        if not self.headers.get("upscale"):
            return False
        switch, factor = self.model.fields.get("upscale"), factor_input(self.model)
        requested = self.headers.get("upscale_factor")
        if switch is None and factor is None:
            if not self.rules.can_upscale:
                self._unavailable("upscale", "IMAGE_UPSCALER to a model that upscales pictures")
            return self.rules.can_upscale
        if switch is not None:
            self._set(switch, True, "upscale")
        if factor is None:
            if requested is not None:
                self._unsupported(HEADER_OF["upscale_factor"])
        elif requested is not None:
            self._set(factor, requested, "upscale_factor")
        elif switch is None and (number_in(self.inputs.get(factor.name, factor.default)) or 0) < DEFAULT_FACTOR:
            self.inputs[factor.name] = factor.accept(DEFAULT_FACTOR, HEADER_OF["upscale"])
        return False

    def _place_format(self) -> tuple[OutputFormat, bool]:
        """Return the format of the answer, and whether the model may return another.

        The default is the format of an alias, else PNG. A model without that format is set to the best one it has.
        """
        field = self._field("output_format")
        chosen = self._choose_format(field)
        if field is None or (field.kind != "string" and not field.options):
            return chosen, True
        known = {str(option).lower(): option for option in field.options}
        for name in _SPELLINGS[chosen]:
            if name in known or not known:
                self.inputs[field.name] = known.get(name, name)
                return chosen, False
        best = next((known[name] for name in ("png", "webp", "jpg", "jpeg") if name in known), None)
        if best is not None:
            self.inputs[field.name] = best
        return chosen, True

    def _choose_format(self, field: ModelInput | None) -> OutputFormat:
        """Choose by ``input``, header, body and ``Accept``, in this order of precedence."""
        body, by_header = self.parameters.body.get("output_format"), self.headers.get("output_format")
        by_extra = FORMATS.get(str(self.parameters.extra.get("output_format")).lower()) if field is not None else None
        if by_extra is not None and by_header is not None and by_extra != by_header:
            raise conflict(self.parameters, "output_format", "input.output_format", by_extra)
        requested = by_extra or by_header or FORMATS.get(str(body).lower())
        if body is not None and requested is None:
            self.notices.append("output_format")
        default = None if field is None else FORMATS.get(str(self.inputs.get(field.name)).lower())
        if self.parameters.accepted is None:
            return requested or default or "png"
        chosen = self.parameters.accepted.choose(requested, default)
        if requested is not None and chosen != requested:
            by_body = "input.output_format" if by_extra else "output_format"
            self.notices.append(HEADER_OF["output_format"] if by_header else by_body)
        return chosen

    def _place_quality(self) -> int | None:
        """Return the quality for conversions by the proxy. It is also sent to a model that has an input for it."""
        by_header = "output_quality" in self.headers
        quality = self.headers["output_quality"] if by_header else self.parameters.body.get("output_compression")
        if quality is None:
            return None
        if not 0 <= quality <= 100:  # from the body: the header has been validated
            self.notices.append("output_compression")
            return None
        field = self._field("output_quality")
        if field is not None and by_header:
            self._place("output_quality", quality)
        elif field is not None:
            self._try("output_compression", field.name, quality)
        return int(quality)

    def _place_extra(self) -> None:
        """Set the inputs in the body's ``input``, by the model's names. They take precedence over body fields."""
        for name, value in self.parameters.extra.items():
            param = f"input.{name}"
            field = self.model.fields.get(name)
            if field is None:
                self._unsupported(param)
            else:
                self._place_own(field, field.accept(value, param), param)

    def _place_own(self, field: ModelInput, value: Any, param: str) -> None:
        current = self.inputs.get(field.name, field.default)
        if is_more_permissive(field.name, value, current):
            if not self.rules.allow_unsafe:
                raise InvalidRequest(
                    f"This server does not allow less strict safety checkers. Omit {param}.", param=param
                )
            if self.headers.get("safety_checker"):
                raise conflict(self.parameters, "safety_checker", param, value)
        if field.name in self.by_header and value != current:
            raise conflict(self.parameters, self.by_header[field.name], param, value)
        self.inputs[field.name] = value

    # Counting

    def _n(self, counter: ModelInput | None) -> int:
        """Return the number of pictures: from the body's ``input``, the header, ``n``, or an alias."""
        own = None if counter is None else number_in(self.inputs.get(counter.name))
        by_header = self.headers.get("num_outputs")
        if counter is not None and counter.name in self.parameters.extra:
            param = f"input.{counter.name}"
            if own is None or not 1 <= own <= MAX_PICTURES:
                raise InvalidRequest(f"{param} must be an integer from 1 to {MAX_PICTURES}.", param=param)
            if by_header is not None and by_header != own:
                raise conflict(self.parameters, "num_outputs", param, own)
            return own
        n = self.parameters.n if by_header is None else by_header
        return int(n if n is not None else own or 1)

    def _fan_out(self, n: int, counter: ModelInput | None) -> tuple[dict[str, Any], ...]:
        """Return the inputs of each prediction: as many pictures as possible in each, with successive seeds."""
        per_prediction, explicit = 1, False
        counts = counts_of(counter) if counter is not None else []
        if counter is not None and counter.name in self.parameters.extra:
            per_prediction = n
            self._ask_for_group(self.inputs, counter, n)
        elif counter is not None and counts:
            default = self.inputs.get(counter.name, counter.default)
            per_prediction, explicit = counts[-1], n > 1 or "num_outputs" in self.headers or default not in (None, 1)
        seed = self._field("seed")
        predictions = []
        for start in range(0, n, per_prediction):
            inputs = dict(self.inputs)
            if counter is not None and explicit:
                count = min(count for count in counts if count >= min(per_prediction, n - start))
                self._set_count(inputs, counter, count)
            if start and seed is not None and seed.name in inputs:
                inputs[seed.name] = count_up(inputs[seed.name], start, seed)
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
                raise self._missing(field)

    def _missing(self, field: ModelInput) -> InvalidRequest:
        """Return the error for a required input, by the body field for it."""
        message = f"This model requires the input '{field.name}': {field.takes}."
        param = "prompt" if field.name in PROMPT_NAMES else f"input.{field.name}"
        for parameter, name, sent in (
            ("init_image", "image", self.parameters.has_init),
            ("mask", "mask", self.parameters.has_mask),
        ):
            if field.name in CANDIDATES[parameter] and not sent:
                message = f"{message} Send the field {name}, or {HEADER_OF[parameter]}."
                param = name
        return InvalidRequest(message, param=param, code="missing_required_parameter")


_SPELLINGS: dict[str, tuple[str, ...]] = {"png": ("png",), "jpg": ("jpg", "jpeg"), "webp": ("webp",)}
