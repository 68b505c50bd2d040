"""instructor, in its modes for OpenAI."""

from __future__ import annotations

import instructor
import pytest
from instructor import Mode
from openai import AsyncOpenAI
from pydantic import TypeAdapter

from tests.third_party.trips import ABOUT_TRIP, Place, Trip, check_trip

TRIPS = [
    Trip(title="Two Rivers", days=3, pace="slow", places=[Place(name="Lyon", country="France")]),
    Trip(title="One Lake", days=1, pace="fast", places=[]),
]

MODES = [
    Mode.TOOLS,
    Mode.JSON,
    Mode.JSON_SCHEMA,
    Mode.MD_JSON,
    Mode.RESPONSES_TOOLS,
]


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
async def test_answer_in_a_type(client: AsyncOpenAI, mode: Mode) -> None:
    asking = instructor.from_openai(client, mode=mode)
    trip = await asking.create(
        model="demo-chat", response_model=Trip, messages=[{"role": "user", "content": ABOUT_TRIP}]
    )
    check_trip(trip)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
async def test_partial_answers(client: AsyncOpenAI, mode: Mode) -> None:
    asking = instructor.from_openai(client, mode=mode)
    pieces = asking.create_partial(
        model="demo-chat", response_model=Trip, messages=[{"role": "user", "content": ABOUT_TRIP}]
    )
    last = [piece async for piece in pieces][-1]
    check_trip(Trip.model_validate(last.model_dump()))


@pytest.mark.parametrize("mode", [Mode.TOOLS, Mode.RESPONSES_TOOLS], ids=lambda mode: mode.name)
async def test_several_answers(client: AsyncOpenAI, mode: Mode) -> None:
    calls = TypeAdapter(dict[str, list[Trip]]).dump_json({"tasks": TRIPS}).decode()
    question = f"Call IterableTrip({calls})"
    asking = instructor.from_openai(client, mode=mode)
    trips = await asking.create(
        model="demo-chat", response_model=list[Trip], messages=[{"role": "user", "content": question}]
    )
    assert trips == TRIPS
