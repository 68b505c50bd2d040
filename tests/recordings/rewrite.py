"""Write the expected answers beside the recordings: ``python -m tests.recordings.rewrite [folder …]``.

It writes the proxy's current answers; review the diff before you commit it. The raw files are never changed.
"""

from __future__ import annotations

import asyncio
import sys

from openai_dify_proxy.telemetry import configure_logging
from tests.recordings.archive import HANDMADE, VERSIONS, refusals, streams
from tests.recordings.replay import replaying
from tests.recordings.sdk_answers import read_answer, read_stream


async def rewrite(folders: tuple[str, ...]) -> int:
    recordings = streams(*folders) + refusals(*folders)
    async with replaying(recordings) as replay:
        chunks = await replay.read_json(read_stream, recordings)
        answers = await replay.read_json(read_answer, recordings)
    for recording in recordings:
        recording.write_expected({"stream": chunks[recording.label], "answer": answers[recording.label]})
    return len(recordings)


if __name__ == "__main__":
    configure_logging("critical", "console")
    count = asyncio.run(rewrite(tuple(sys.argv[1:]) or (*VERSIONS, HANDMADE)))
    sys.stdout.write(f"{count} expected answers written\n")
