"""A scripted Dify: it speaks Dify's service API as recorded servers do, and needs no model.

The proxy serves it when nothing is configured, and the tests run against it. Each app of DEMO_APPS repeats the
question and tells how many messages it remembers. An app's key selects it; a version of DIALECTS behind the key, such
as `@1.13`, selects the dialect of that version of Dify.

Words in capitals in a question are commands:

====================  ===============================================================================
`SAY<<text>>`         answers exactly this text
`EMPTY`               answers nothing
`LONG:20000`          answers 20000 characters, at most 100000
`CJK`                 answers in several scripts, with an emoji and Unicode line separators
`RECALL`              answers with the earlier messages that its model received, each as a line of JSON
`SLOW:30x500`         answers with 30 ticks, 500 ms before each; with SAY, 500 ms before each piece of that
                      text; at most 1000 ticks and 120 s
`THINK`               thinks in a `<think>` block first; in a New Agent, in its thoughts
`THINK:separated`     thinks apart from the answer, where the app's version supports it
`TOOL`                an agent calls a tool
`FILE`                makes a picture
`CITE`                cites two documents, one with a web address
`MODERATE`            moderation replaces the answer after it was sent
`RETRY`               a graph's model fails after some words and runs again
`PARTIAL`             a graph's model node fails and the graph goes on
`PAUSE`               the app asks a human and waits
`ANNOTATION`          an annotation answers in the model's place
`ERROR`, `MIDERROR`   the model fails before, or after, the first words; the reason is `:bad`, `:rate`, `:auth`,
                      `:conn`, `:internal` or `:raw`
`ERROR:limit`         the request is refused: also `:provider`, `:quota`, `:disabled`, `:crash`, `:nginx`
====================  ===============================================================================

Faults exist to break clients. These words are commands only with `DemoServer(faults=True)`:

====================  ===============================================================================
`CUT`, `EOF`          the connection breaks, or the stream just ends, after some words
`SILENCE`             never a byte; `MIDSILENCE`: nothing more after some words
`PINGS`               only pings
`QUEUE:20`            20 s in a queue; a graph that has a worker pings once before it
`HEADERS:20`          20 s before the headers
`GARBAGE`, `BADUTF8`  a frame of broken JSON, or of broken UTF-8, after some words
`OVERSIZE:9000000`    one event with 9000000 characters, at most 50000000, after some words
====================  ===============================================================================
"""

from __future__ import annotations

from openai_dify_proxy_demo.apps import DEMO_APPS, SPECIAL_APPS, DemoApp
from openai_dify_proxy_demo.dialects import DIALECTS
from openai_dify_proxy_demo.log import DemoLog
from openai_dify_proxy_demo.runs import DEMO_PACE, INSTANT, Timing
from openai_dify_proxy_demo.server import DemoServer, create_demo_app

__all__ = [
    "DEMO_APPS",
    "DEMO_PACE",
    "DIALECTS",
    "INSTANT",
    "SPECIAL_APPS",
    "DemoApp",
    "DemoLog",
    "DemoServer",
    "Timing",
    "create_demo_app",
]
