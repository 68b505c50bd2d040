"""Error messages for unknown image headers, with a suggestion."""

from __future__ import annotations

from openai_dify_proxy.translate.replicate.candidates import CANDIDATES
from openai_dify_proxy.translate.replicate.headers import HEADER_OF, PREFIXES
from openai_dify_proxy.translate.replicate.model_schema import ModelInputs, describe

_BODY_FIELDS = ("prompt", "model", "n", "quality", "background", "user", "response_format", "stream")
_SIZE_INPUTS = ("width", "height", "image_width", "image_height", "aspect_ratio", "size", "resolution", "image_size")
_SIMILARITY = 0.7


def explain_unknown_header(name: str, model: ModelInputs) -> str:
    """Return the error message for the header ``name``."""
    return f"There is no header {name}. {_hint(_parameter(name), model)}"


def _parameter(name: str) -> str:
    """Return the name of a header without its prefix, in the spelling of inputs."""
    name = name.lower()
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name.replace("-", "_")


def _hint(parameter: str, model: ModelInputs) -> str:
    for known, names in CANDIDATES.items():
        if parameter == known or parameter in names:
            return f"Did you mean {HEADER_OF[known]}?"
    if parameter in _BODY_FIELDS:
        return f'Send "{parameter}" in the body.'
    if parameter in _SIZE_INPUTS:
        return _size_hint(parameter, model)
    if parameter in model.fields:
        return f"It is an input of this model: send {_in_body(parameter)}."
    return _similar_hint(parameter, model)


def _similar_hint(parameter: str, model: ModelInputs) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - few headers need it

    similar = get_close_matches(parameter, (*_HEADERS, *model.fields), 1, _SIMILARITY)
    if not similar:
        return f'Send inputs of the model as "input" in the body. This model has: {describe(model)}.'
    if similar[0] in _HEADERS:
        return f"Did you mean {_HEADERS[similar[0]]}?"
    return f"Did you mean this model's input '{similar[0]}'? Send {_in_body(similar[0])}."


def _size_hint(parameter: str, model: ModelInputs) -> str:
    own = model.first((parameter, f"image_{parameter}", *_SIZE_INPUTS))
    if own is None:
        return "This model has no input for sizes. Omit the header."
    return f"This model's input is '{own.name}': send \"size\" or {_in_body(own.name)}."


_HEADERS = HEADER_OF | {_parameter(name): name for name in HEADER_OF.values()}


def _in_body(name: str) -> str:
    return f'"input": {{"{name}": …}} in the body'
