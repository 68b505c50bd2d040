"""Generates pictures with Dify apps: a run for each picture, whose first picture file is stored like any other.

The links in an answer are links to artifacts, so only files that the app itself produced are read, from its Dify.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from time import time
from typing import Any

from msgspec import Struct, structs

from openai_dify_proxy.errors import (
    InvalidRequest,
    ModelNotAllowed,
    NotFound,
    ProxyError,
    Quoting,
    UpstreamFailed,
    UpstreamTimeout,
)
from openai_dify_proxy.files.artifacts.service import Artifacts
from openai_dify_proxy.images.generated import GeneratedPicture, OnPartial, gather
from openai_dify_proxy.images.picture_request import InputPicture, PictureRequest
from openai_dify_proxy.pictures.convert import convert
from openai_dify_proxy.pictures.records import PictureFacts
from openai_dify_proxy.pictures.writer import PictureWriter
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.translate.answer import Answer
from openai_dify_proxy.translate.dify.picture_plan import MASK, PicturePlan, plan_app_pictures
from openai_dify_proxy.translate.file_types import detect
from openai_dify_proxy.translate.pictures.formats import sniff
from openai_dify_proxy.translate.turn_request import FileContents, HistoryMessage, SentFile, TurnRequest
from openai_dify_proxy.turns.apps import App, Apps
from openai_dify_proxy.turns.profiles import Profiles
from openai_dify_proxy.turns.service import Turns

ADDRESS = "http://pictures.invalid"
"""The address in links to artifacts that no client sees; ``PUBLIC_URL`` takes precedence."""

MAX_CANDIDATES = 10
"""Files of one answer that are looked at."""

MAX_SHOWN = 200
"""Characters of an answer without a picture that its error shows."""

_LINK = re.compile(r"https?://[^\s()<>\"']{1,600}/artifacts/[0-9A-Za-z_-]{48}\.[0-9a-z]{1,10}")


class AppImageModel(Struct, frozen=True):
    """An image model that a Dify app serves. ``inputs`` are the configured ones."""

    name: str
    app: str
    inputs: Mapping[str, Any]


class PreparedTurns(Struct, frozen=True):
    """A validated request: ``plan.n`` runs of ``app`` with ``turn``. ``deadline`` is in the event loop's time."""

    request: PictureRequest
    model: AppImageModel
    app: App
    turn: TurnRequest
    plan: PicturePlan
    deadline: float

    @property
    def notices(self) -> Sequence[str]:
        return self.plan.notices

    @property
    def account(self) -> str:
        return self.app.name


class AppGenerator:
    """Generates and stores pictures with the apps of ``[images.models.<name>]``. Every method raises ProxyError."""

    def __init__(
        self,
        settings: Settings,
        models: Mapping[str, AppImageModel],
        *,
        turns: Turns,
        apps: Apps,
        profiles: Profiles,
        artifacts: Artifacts,
        writer: PictureWriter,
    ) -> None:
        self._models = models
        self._turns = turns
        self._apps = apps
        self._profiles = profiles
        self._artifacts = artifacts
        self._writer = writer
        self._default = settings.image_model
        self._policy = settings.unsupported_parameters
        self._seconds = settings.image_timeout
        self._concurrency = settings.image_concurrency
        self._limit = settings.max_picture_bytes
        self._store_prompts = settings.store_prompts

    async def prepare(self, request: PictureRequest) -> PreparedTurns:
        """Validate a request. Raises the errors of a turn that the app cannot answer, before it runs."""
        deadline = asyncio.get_running_loop().time() + self._seconds
        model = self._models.get(request.model or "") or self._models[self._default]
        if not request.caller.may_use(model.name):
            raise ModelNotAllowed(
                f"Your API key does not have access to the image model '{model.name}'.", param="model"
            )
        app = self._apps.choose_own(request.caller, model.app)
        profile = self._profiles.cached(app.dify) or await self._profiles.get(app.dify, app.mode)
        plan = plan_app_pictures(request.parameters, profile, model.inputs, self._policy)
        prompt = request.parameters.prompt or ""
        files = tuple(_sent(picture) for picture in request.inputs)
        inputs = plan.inputs if request.mask is None else {**plan.inputs, MASK: f"part:{len(request.init)}"}
        turn = TurnRequest(
            prompt,
            asked=(HistoryMessage("user", prompt, files=files),),
            inputs=inputs,
            end_user=request.parameters.body.get("user"),
            stateless=True,
            contents=_contents(request),
        )
        if ignored := self._turns.ignored(app, None, turn):
            raise InvalidRequest(
                "This model is a Dify app that takes no files. Send a prompt only, or choose another model.",
                param=ignored[0],
                code="files_not_enabled",
            )
        await self._turns.check(request.caller, app, turn, wait=self._turns.wait(streamed=False))
        return PreparedTurns(request, model, app, turn, plan, deadline)

    async def generate(self, prepared: PreparedTurns, on_partial: OnPartial | None = None) -> list[GeneratedPicture]:
        """Return the pictures, each of its own run."""
        slots = asyncio.Semaphore(self._concurrency)
        n = prepared.plan.n

        async def one() -> list[GeneratedPicture]:
            async with slots:
                picture = await self._picture(prepared)
            if on_partial is not None and n > 1:
                await on_partial(picture.data, picture.record)
            return [picture]

        try:
            async with asyncio.timeout_at(prepared.deadline):
                return await gather([one() for _ in range(n)], n)
        except TimeoutError:
            raise UpstreamTimeout(
                f"The pictures were not finished within {self._seconds:g} s, the limit of this server. Request fewer.",
                started=True,
            ) from None

    async def _picture(self, prepared: PreparedTurns) -> GeneratedPicture:
        request, plan = prepared.request, prepared.plan
        data = await self._find_picture(await self._answer(prepared), request.caller.id)
        facts = PictureFacts(
            model=prepared.model.name,
            prediction_id=None,
            seed=None,
            created=int(time()),
            prompt=request.parameters.prompt if self._store_prompts else None,
        )
        stored = await self._writer.store(await convert(data, to=plan.output_format, quality=plan.quality), facts)
        return GeneratedPicture(record=stored.record, data=stored.data)

    async def _answer(self, prepared: PreparedTurns) -> Answer:
        """Run the app once. Cancellation stops the run."""
        turn = structs.replace(prepared.turn, contents=_contents(prepared.request))  # a run drops its contents
        answer = Answer()
        async with self._turns.run(prepared.request.caller, prepared.app, turn, address=lambda: ADDRESS) as active:
            async for events in active:
                answer.add(events)
        if answer.error is not None:
            raise answer.error
        return answer

    async def _find_picture(self, answer: Answer, caller: str) -> bytes:
        """Return the first picture among the files of an answer, and of the links in its text."""
        links = dict.fromkeys([*(file.url for file in answer.files), *_LINK.findall(answer.text)])
        problem = ""
        for link in list(links)[:MAX_CANDIDATES]:
            if not await self._artifacts.is_link(link):
                continue
            try:
                data = await self._artifacts.load(link, caller, self._limit)
            except NotFound as error:
                problem = error.message
                continue
            if sniff(data) is not None:
                return data
            problem = "The file that it returned is not a PNG, JPEG, WebP or GIF picture."
        raise _no_picture(answer, problem)


def _no_picture(answer: Answer, problem: str) -> ProxyError:
    statement, advice = "The app returned no picture", problem or "Change the prompt."
    shown = _LINK.sub("…", answer.text).strip()[:MAX_SHOWN]
    quotes = bool(shown) and not problem
    message = Quoting(statement, f"“{shown}”", f" {advice}") if quotes else f"{statement}. {advice}"
    return UpstreamFailed(message, code="no_picture", started=True)


def _contents(request: PictureRequest) -> FileContents | None:
    if not request.inputs:
        return None
    contents = FileContents()
    for picture in request.inputs:
        if picture.data is not None:
            contents.add(sha256(picture.data).hexdigest(), picture.data)
    return contents


def _sent(picture: InputPicture) -> SentFile:
    if picture.data is None:
        return SentFile("image", url=picture.url or "", param=picture.param)
    found = detect(picture.data)
    digest = sha256(picture.data).hexdigest()
    return SentFile(found.kind, "", found.extension, found.media_type, len(picture.data), digest, param=picture.param)
