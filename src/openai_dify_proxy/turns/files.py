"""The files of a turn: checked against what the app accepts, and brought to Dify."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec import structs

from openai_dify_proxy.files.fetching import FETCH_SECONDS
from openai_dify_proxy.files.stored_files import StoredFiles
from openai_dify_proxy.files.uploads import Destination, FileUploads, KnownCopies
from openai_dify_proxy.translate.dify.app_profile import AppProfile
from openai_dify_proxy.translate.dify.file_plan import NO_FILES, FilePlan, plan_files
from openai_dify_proxy.translate.turn_request import HistoryMessage, TurnRequest
from openai_dify_proxy.turns.apps import App
from openai_dify_proxy.turns.callers import Caller


class TurnFiles:
    """Plans and uploads the files of turns. ``warn`` says that files which an app would ignore are no error."""

    def __init__(self, uploads: FileUploads, stored: StoredFiles, *, warn: bool) -> None:
        self._uploads = uploads
        self._stored = stored
        self._warn = warn

    async def resolve(self, caller: Caller, request: TurnRequest) -> TurnRequest:
        """Return the request with the types and sizes of the files that it names by their ids.

        Raises InvalidRequest for an unknown file in a new message, and StateUnreachable.
        """
        if request.contents is None:
            return request
        return structs.replace(
            request,
            asked=await self._resolve(caller, request.asked, required=True),
            history=await self._resolve(caller, request.history, required=False),
        )

    async def _resolve(
        self, caller: Caller, messages: tuple[HistoryMessage, ...], *, required: bool
    ) -> tuple[HistoryMessage, ...]:
        if not any(file.file_id for message in messages for file in message.files):
            return messages
        resolved = []
        for message in messages:
            files = [
                await self._stored.resolve(caller.id, file, required=required) if file.file_id else file
                for file in message.files
            ]
            resolved.append(structs.replace(message, files=tuple(files)) if files else message)
        return tuple(resolved)

    def plan(
        self,
        app: App,
        profile: AppProfile,
        request: TurnRequest,
        earlier: Sequence[HistoryMessage],
        *,
        transcript: bool,
    ) -> FilePlan:
        """Return where the files of a request go. Raises InvalidRequest for a file that the app does not accept."""
        inputs = {**app.rules.inputs, **request.inputs}
        return plan_files(request, earlier, profile, inputs, transcript=transcript, warn=self._warn)

    def check(self, app: App, profile: AppProfile, request: TurnRequest) -> FilePlan:
        """Return the plan of a request as if its files were in Dify. Raises InvalidRequest."""
        if request.contents is None:
            return NO_FILES
        return self.plan(app, profile, request, request.history, transcript=not profile.converses).promised

    def ignored(self, profile: AppProfile | None, request: TurnRequest) -> Sequence[str]:
        """Return the paths of new files that the app will ignore; ``profile`` is None if it is not known yet."""
        if request.contents is None or profile is None or not self._warn:
            return ()
        return [file.param for file in plan_files(request, (), profile, request.inputs, warn=True).ignored]

    async def place(
        self,
        app: App,
        profile: AppProfile,
        request: TurnRequest,
        earlier: Sequence[HistoryMessage],
        *,
        transcript: bool,
        user: str,
        caller: str,
        secret: bytes | None,
        copies: KnownCopies,
    ) -> FilePlan:
        """Bring the files to Dify for its ``user``. Raises ProxyError if a new file cannot be sent."""
        plan = self.plan(app, profile, request, earlier, transcript=transcript)
        until = asyncio.get_running_loop().time() + FETCH_SECONDS
        sizes = profile.parameters.system_parameters
        destination = Destination(app.dify, user, caller, sizes, secret, until, copies)
        return await self._uploads.place(plan, request.contents, destination)
