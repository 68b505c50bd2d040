"""Write the expected answers of the recordings: ``python -m tests.recordings.rewrite [folder …]``.

It writes the proxy's current answers; review the diff before you commit it. The raw files are never changed.
"""

from __future__ import annotations

import asyncio
import sys

from openai_dify_proxy.telemetry import configure_logging
from tests.recordings.archive import HANDMADE, VERSIONS, refusals, streams
from tests.recordings.replay import replaying
from tests.recordings.sdk_answers import read_answer
from tests.recordings.translation import translated


async def rewrite(folders: tuple[str, ...]) -> int:
    """Write the answer for frames that arrive one at a time; rejections are read through the proxy."""
    recorded = streams(*folders)
    for recording in recorded:
        recording.write_expected(translated(recording, recording.frames))
    refused = refusals(*folders)
    async with replaying(refused) as replay:
        answers = await replay.read_json(read_answer, refused)
    for recording in refused:
        recording.write_expected({"stream": [answers[recording.label]], "answer": answers[recording.label]})
    return len(recorded) + len(refused)


if __name__ == "__main__":
    configure_logging("critical", "console")
    count = asyncio.run(rewrite(tuple(sys.argv[1:]) or (*VERSIONS, HANDMADE)))
    sys.stdout.write(f"{count} expected answers written\n")
