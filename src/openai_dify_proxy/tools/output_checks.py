"""Checks the schemas of a request's tools and answer format, with the errors of OpenAI."""

from __future__ import annotations

import re

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.tools.schema_walk import BadSchema, SchemaTooComplex
from openai_dify_proxy.tools.schemas import Validator, compile_schema
from openai_dify_proxy.tools.strict_schemas import check_root, check_strict
from openai_dify_proxy.translate.turn_request import AnswerFormat, OutputRequest, Tool

MAX_NAME = 64
MAX_SCHEMAS = 2 * 1024 * 1024
"""Bytes of the schemas of all tools."""

MAX_NODES = 20_000
"""Subschemas of all tools: about 0.2 s, if none of them was compiled before."""

_NAME = re.compile(r"[a-zA-Z0-9_-]+")


def check_output_request(output: OutputRequest) -> None:
    """Raise ``InvalidRequest`` if a schema, or the name of the answer's format, is invalid.

    ``param`` of the error is the place: ``Tool.param`` followed by ``.parameters``, for example.
    """
    sizes = sum(len(tool.parameters or b"") for tool in output.tools)
    if sizes > MAX_SCHEMAS:
        raise InvalidRequest(f"The schemas of the tools have {sizes} bytes. The limit is {MAX_SCHEMAS}.", param="tools")
    nodes = 0
    for tool in output.tools:
        if (validator := tool_validator(tool)) is not None:
            nodes += validator.nodes
        if nodes > MAX_NODES:
            raise InvalidRequest(
                f"The schemas of the tools have more than {MAX_NODES} subschemas. Send fewer tools.", param="tools"
            )
    if output.answer_format is not None:
        _check_format(output.answer_format)


def tool_validator(tool: Tool) -> Validator | None:
    """Return the validator of a tool's arguments, or None if it has no schema. Raises ``InvalidRequest``."""
    if tool.parameters is None or tool.custom:
        return None
    where = f"function '{tool.name}'"
    param = f"{tool.param}.parameters"
    return _validator(tool.parameters, where, param, "invalid_function_parameters", strict=tool.strict, is_object=True)


def format_validator(answer_format: AnswerFormat) -> Validator | None:
    """Return the validator of the answer, or None if it has no schema. Raises ``InvalidRequest``."""
    if answer_format.schema is None:
        return None
    where = f"response_format '{answer_format.name}'"
    return _validator(
        answer_format.schema, where, answer_format.param, "invalid_json_schema", strict=answer_format.strict
    )


def _validator(schema: bytes, where: str, param: str, code: str, *, strict: bool, is_object: bool = False) -> Validator:
    try:
        validator = compile_schema(schema)
        if strict:
            check_strict(validator.root)
        elif is_object:
            check_root(validator.root, strict=False)
    except BadSchema as error:
        context = f"In context={error.path}, " if error.path or strict else ""
        raise InvalidRequest(f"Invalid schema for {where}: {context}{error}", param=param, code=code) from error
    except SchemaTooComplex as error:
        raise InvalidRequest(f"Invalid schema for {where}: {error}", param=param, code=code) from error
    return validator


def _check_format(answer_format: AnswerFormat) -> None:
    if answer_format.name:
        _check_name(answer_format.name, f"{_parent(answer_format.param)}.name")
    format_validator(answer_format)


def _parent(param: str) -> str:
    return param.removesuffix(".schema")


def _check_name(name: str, param: str) -> None:
    if len(name) > MAX_NAME:
        raise InvalidRequest(
            f"Invalid '{param}': string too long. Expected a string with maximum length {MAX_NAME}, "
            f"but got a string with length {len(name)} instead.",
            param=param,
            code="string_above_max_length",
        )
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"Invalid '{param}': string does not match pattern. Expected a string that matches the pattern "
            "'^[a-zA-Z0-9_-]+$'.",
            param=param,
            code="invalid_value",
        )
