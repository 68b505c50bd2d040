"""No number in a document from outside takes msgspec's slow way, which is 200 times slower than the usual one."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import Struct, inspect
from msgspec.json import Decoder

import openai_dify_proxy.wire
from openai_dify_proxy.responses import response_store
from openai_dify_proxy.translate.openai import responses_items
from openai_dify_proxy.wire.numbers import read_float

MODULES = [
    *(
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(openai_dify_proxy.wire.__path__, "openai_dify_proxy.wire.")
    ),
    response_store,
    responses_items,
]
DECODERS = {
    f"{module.__name__.removeprefix('openai_dify_proxy.')}.{name}": value
    for module in MODULES
    for name, value in vars(module).items()
    if isinstance(value, Decoder)
}


def parts_of(info: Any) -> Iterator[Any]:
    """Yield the type and all types within it."""
    yield info
    if isinstance(info, Struct):
        for name in info.__struct_fields__:
            value = getattr(info, name)
            for part in value if isinstance(value, tuple) else (value,):
                if isinstance(part, inspect.Type | inspect.Field):
                    yield from parts_of(part)


def test_the_decoders_are_found() -> None:
    assert {"wire.dify.EVENT", "wire.openai.responses.RESPONSES_REQUEST", "wire.reading.ANY_VALUE"} <= DECODERS.keys()


@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)
def test_untyped_numbers_are_read_by_our_own_reader(decoder: Decoder[Any]) -> None:
    untyped = any(isinstance(part, inspect.AnyType) for part in parts_of(inspect.type_info(decoder.type)))
    assert decoder.float_hook is (read_float if untyped else None)
