"""Decides which files of a request go to Dify, and where: into ``files``, or into an input of the app.

- An input that names parts (``"pics": ["part:0"]``) takes the files at these positions among the new ones.
- The other new files fill the app's required file inputs. In a chatflow the rest goes into ``files`` if the app's
  uploads are on; elsewhere into the optional file inputs first, in the order of the form.
- Files of earlier messages are sent only if the earlier messages are, the newest first as long as there is room. The
  transcript names the others. A required input without a new file gets the newest earlier one in any case.

A new file that the app would ignore is an error, or named in the question if ``warn`` is true.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct, structs

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.dify.app_profile import AppProfile, InputField
from openai_dify_proxy.translate.dify.file_rules import FileRules, rules_of_app, size_limit
from openai_dify_proxy.translate.turn_request import FileKind, HistoryMessage, SentFile, TurnRequest
from openai_dify_proxy.wire.dify import FileReference

_PART = re.compile(r"^part:(\d{1,4})$")
_MEGABYTE: Final = 1024 * 1024


class PlacedFile(Struct, frozen=True):
    """A file and its place: the input ``target``, or ``files`` if that is None. ``kind`` is the declared type.

    ``new`` files belong to the question; if one cannot be sent, the turn fails. ``reference`` is set once the file is
    in Dify.
    """

    file: SentFile
    target: InputField | None
    kind: FileKind
    rules: FileRules
    new: bool
    reference: FileReference | None = None


class FilePlan(Struct, frozen=True):
    """The files to send, in the order of their messages. ``ignored`` are new files that the app would ignore."""

    placed: tuple[PlacedFile, ...] = ()
    ignored: tuple[SentFile, ...] = ()

    @property
    def included(self) -> frozenset[str]:
        """The identities of the files that are sent."""
        return frozenset(placed.file.identity for placed in self.placed if placed.reference is not None)

    def references(self) -> list[FileReference]:
        """Return the content of ``files``."""
        return [placed.reference for placed in self.placed if placed.target is None and placed.reference is not None]

    def inputs(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of the app's file inputs. ``given`` may have further files, in Dify's own form."""
        values: dict[str, Any] = {}
        for placed in self.placed:
            if placed.target is None or placed.reference is None:
                continue
            name = placed.target.name
            if placed.target.kind == "file":
                values[name] = placed.reference
                continue
            if name not in values:
                before = given.get(name)
                values[name] = [item for item in before if isinstance(item, dict)] if isinstance(before, list) else []
            values[name].append(placed.reference)
        return values

    @property
    def promised(self) -> FilePlan:
        """The plan as if all files were in Dify, for checks of the request."""
        reference = FileReference("custom", "local_file")
        return FilePlan(tuple(structs.replace(placed, reference=reference) for placed in self.placed), self.ignored)


NO_FILES = FilePlan()


def plan_files(
    request: TurnRequest,
    earlier: Sequence[HistoryMessage],
    profile: AppProfile,
    inputs: Mapping[str, Any],
    *,
    transcript: bool = True,
    warn: bool = False,
) -> FilePlan:
    """Return where the files of a request go. ``earlier`` messages are sent if there is a ``transcript``.

    ``inputs`` are those of the request and the settings. Raises InvalidRequest for a new file that the app does not
    accept.
    """
    rules = rules_of_app(profile.mode, profile.parameters)
    new = request.new_files
    placed, left = _place_named(new, profile, inputs)
    ignored: list[SentFile] = []
    rooms = list(_rooms(profile, inputs, rules))
    for file in left:
        room = _room_for(file, rooms)
        if room is None and not rooms:
            ignored.append(file)
            continue
        if room is None:
            raise _not_accepted(file, rooms)
        placed.append(room.place(file, new=True))
    if ignored and not warn:
        raise _not_enabled(ignored[0], profile)
    for item in placed:
        _check_size(item, profile)
    if not transcript:
        rooms = [room for room in rooms if room.is_unfilled and room.target is not None and room.target.required]
    old = _old_files(earlier, rooms, profile, {item.file.identity for item in placed})
    return FilePlan((*reversed(old), *placed), tuple(ignored))


def named_files(message: HistoryMessage, included: frozenset[str]) -> HistoryMessage:
    """Return a message whose text names its files, and says which ones the model does not receive."""
    if not message.files:
        return message
    notes = (
        f"[File: {file.file_name}]" if file.identity in included else f"[File not included: {file.file_name}]"
        for file in message.files
    )
    return structs.replace(message, text="\n".join(filter(None, (message.text, *notes))))


class _Room:
    """An input, or ``files``, and how many more files it takes."""

    def __init__(self, target: InputField | None, rules: FileRules) -> None:
        self.target = target
        self.rules = rules
        self.left = rules.count

    @property
    def is_unfilled(self) -> bool:
        return self.left == self.rules.count

    def place(self, file: SentFile, *, new: bool) -> PlacedFile:
        kind = self.kind_for(file)
        assert kind is not None
        self.left -= 1
        return PlacedFile(file, self.target, kind, self.rules, new)

    def kind_for(self, file: SentFile) -> FileKind | None:
        return file.kind if file.upload_id else self.rules.kind_for(file.kind, file.extension)


def _rooms(profile: AppProfile, inputs: Mapping[str, Any], rules: FileRules | None) -> Iterable[_Room]:
    """Yield the places for files that the request has not filled, in the order in which they are used."""
    fields = [(field, field.files) for field in profile.form if field.files is not None]
    unfilled = [(field, accepted) for field, accepted in fields if not inputs.get(field.name)]
    yield from (_Room(field, accepted) for field, accepted in unfilled if field.required)
    if rules is not None and profile.mode == "advanced-chat":
        yield _Room(None, rules)
    yield from (_Room(field, accepted) for field, accepted in unfilled if not field.required)
    if rules is not None and profile.mode != "advanced-chat":
        yield _Room(None, rules)


def _room_for(file: SentFile, rooms: Iterable[_Room]) -> _Room | None:
    return next((room for room in rooms if room.left and room.kind_for(file) is not None), None)


def _place_named(
    new: Sequence[SentFile], profile: AppProfile, inputs: Mapping[str, Any]
) -> tuple[list[PlacedFile], list[SentFile]]:
    """Return the files that inputs name, in their places, and the other ones."""
    placed: list[PlacedFile] = []
    taken: set[int] = set()
    for field in profile.form:
        if field.files is None or field.name not in inputs:
            continue
        value = inputs[field.name]
        room = _Room(field, field.files)
        for name in value if isinstance(value, list) else [value]:
            found = _PART.match(name) if isinstance(name, str) else None
            if found is None:
                continue
            position = int(found[1])
            if position >= len(new):
                raise InvalidRequest(
                    f"The input '{field.name}' names 'part:{position}', but the new messages have {len(new)} files. "
                    "Positions begin at 0.",
                    param=f"inputs.{field.name}",
                    code="invalid_value",
                )
            if _room_for(new[position], [room]) is None:
                raise _not_accepted(new[position], [room])
            taken.add(position)
            placed.append(room.place(new[position], new=True))
    return placed, [file for index, file in enumerate(new) if index not in taken]


def _old_files(
    earlier: Sequence[HistoryMessage], rooms: Sequence[_Room], profile: AppProfile, placed: set[str]
) -> list[PlacedFile]:
    """Return the files of earlier messages that still fit, the newest first."""
    found: list[PlacedFile] = []
    for message in reversed(earlier):
        for file in reversed(message.files):
            small = file.size <= size_limit(file.kind, file.extension, profile.parameters.system_parameters)
            room = _room_for(file, rooms) if small and file.identity not in placed else None
            if room is not None:
                placed.add(file.identity)
                found.append(room.place(file, new=False))
    return found


def _check_size(placed: PlacedFile, profile: AppProfile) -> None:
    file = placed.file
    limit = size_limit(file.kind, file.extension, profile.parameters.system_parameters)
    if file.size > limit:
        raise too_large(file, limit)


def too_large(file: SentFile, limit: int) -> InvalidRequest:
    return InvalidRequest(
        f"'{file.param}' is too large: it has {file.size} bytes. Dify accepts at most {limit // _MEGABYTE} MB for "
        f"{file.kind} files of this app.",
        param=file.param,
        code="file_too_large",
    )


def _not_accepted(file: SentFile, rooms: Sequence[_Room]) -> InvalidRequest:
    fitting = [room for room in rooms if room.kind_for(file) is not None]
    if fitting:
        count = sum(room.rules.count for room in fitting)
        return InvalidRequest(
            f"Too many files: this model takes at most {count} of this type in one message. Send fewer.",
            param=file.param,
            code="too_many_files",
        )
    accepted = "; ".join(dict.fromkeys(room.rules.described for room in rooms))
    return InvalidRequest(
        f"Unsupported file: '{file.param}' is of type '{file.extension or file.kind}'. This model accepts: {accepted}.",
        param=file.param,
        code="unsupported_file_type",
    )


def _not_enabled(file: SentFile, profile: AppProfile) -> InvalidRequest:
    if profile.mode == "agent":
        reason = "Dify passes no files to the model of a new agent."
    elif profile.mode == "workflow":
        reason = "The workflow has no input of type File, and its feature 'File Upload' is off in Dify."
    elif profile.mode == "advanced-chat":
        reason = "The feature 'File Upload' of the chatflow is off in Dify."
    else:
        reason = "The switches 'Vision', 'Document' and 'Audio' of the app are off in Dify."
    return InvalidRequest(
        f"This model takes no files, so '{file.param}' would be ignored. {reason} Send text only, or choose another "
        "model.",
        param=file.param,
        code="files_not_enabled",
    )
