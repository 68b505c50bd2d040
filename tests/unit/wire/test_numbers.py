from __future__ import annotations

import math

import pytest

from openai_dify_proxy.wire.numbers import read_float

NUMBERS = ["0.5", "-0.0", "1e5", "5e-324", "1.7976931348623157e308", "1e-999", "0." + "1" * 5000]


@pytest.mark.parametrize("text", NUMBERS)
def test_a_number_has_the_value_that_python_reads(text: str) -> None:
    assert read_float(text) == float(text)
    assert math.copysign(1, read_float(text)) == math.copysign(1, float(text))


@pytest.mark.parametrize("text", ["1e999", "-1e999", "1.8e308"])
def test_a_number_that_no_double_holds(text: str) -> None:
    with pytest.raises(ValueError, match="Number out of range"):
        read_float(text)
