"""A question, a tool and a type of answer for all frameworks."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class Place(BaseModel):
    name: str
    country: str | None


class Trip(BaseModel):
    """A trip: the answer that the client asks for."""

    title: str
    days: int
    pace: Literal["slow", "fast"]
    places: list[Place]


ABOUT_TRIP = "Plan a trip: title='Two Rivers', days=3, pace=fast"
ABOUT_WEATHER = "Call get_weather(city=Paris) and tell me what it says"


def degrees(city: str) -> str:
    """Return the result of the tool `get_weather`, which no model could guess."""
    return f"{len(city)} degrees in {city}"


def check_trip(trip: object) -> None:
    assert isinstance(trip, Trip)
    assert (trip.days, trip.pace) == (3, "fast")
