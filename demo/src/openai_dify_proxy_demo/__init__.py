"""A scripted Dify that implements Dify's service API without a model.

The proxy serves it when no Dify is configured, and the tests run against it. Each app of DEMO_APPS repeats the message
and reports how many earlier messages it remembers. The API key selects the app. A suffix such as `@1.13` selects the
dialect of that Dify version, a key of DIALECTS.

Words in capitals in a message are commands:

====================  ===============================================================================
`SAY<<text>>`         answers with exactly this text
`EMPTY`               answers with an empty text
`LONG:20000`          answers with 20000 characters, at most 100000
`CJK`                 answers in several scripts, with an emoji and Unicode line separators
`RECALL`              answers with the earlier messages that the model received, one JSON array per line
`SPLIT`               sends the answer one character at a time; answers of more than 4000 characters in larger pieces
`SLOW:30x500`         answers with 30 ticks, waiting 500 ms before each; with `SAY`, waits 500 ms before each
                      piece of that text; at most 1000 ticks and 120 s
`THINK`               starts with reasoning: in a `<think>` block, or in the thoughts of a New Agent
`THINK:separated`     sends the reasoning separately from the answer if the app's version supports it
`TOOL`                calls a tool (agents)
`DRAW`                the model makes a picture; `:jpeg`, `:webp`, `:svg`, `:html`, `:text`, `:pdf`, `:lying`
                      and `:20mb` select another file, `:relative`, `:internal`, `:expired`, `:gone` another link
`FILE`                a tool makes a picture, with the same suffixes
`CITE`                cites two documents, one of them with a URL
`MODERATE`            output moderation replaces the answer after it was streamed
`RETRY`               the model node fails after a few words and is retried (chatflows and workflows)
`PARTIAL`             the model node fails and the run continues (chatflows and workflows)
`PAUSE`               the app asks a human for input and pauses; `PAUSE:2`: twice (chatflows and workflows);
                      `PAUSE:expired`: its form has expired; `PAUSE:email`: it has no token; `PAUSE:cut`: the
                      events after the answer break off once
`ANNOTATION`          an annotation answers instead of the model
`ERROR`, `MIDERROR`   the model fails before (`ERROR`) or after (`MIDERROR`) the first words; a suffix selects
                      the cause: `:bad`, `:rate`, `:auth`, `:conn`, `:internal` or `:raw`
`ERROR:limit`         Dify rejects the request; also `:provider`, `:quota`, `:disabled`, `:crash`, `:nginx`
====================  ===============================================================================

The model follows the instructions of OpenAI Dify Proxy about tools and JSON, in the message or in an input. It calls
the tools that the last paragraph of the message names, or one that it has to call, and answers from the results:

====================  ===============================================================================
`tool(city=Paris)`    calls the tool with these arguments; `tool({"city": "Paris"})` with exactly this JSON.
                      Without parentheses the arguments are texts in quotation marks, numbers, names after
                      words such as "in", and values such as `city=Paris`; at most 20 calls
`THEN`                calls the tools after it once the results of the calls before it have arrived
`INPUT<<text>>`       is the input of a tool that takes free text
`CALL:fenced`         writes calls or JSON in another way, or wrongly; the words are the keys of
                      `tool_model.FAULTS` and `JSON_FAULTS`
`STUBBORN`            repeats `CALL` when the model is asked for a correction
====================  ===============================================================================

Faults test how clients handle broken servers. These words are commands only with `DemoServer(faults=True)`:

====================  ===============================================================================
`CUT`, `EOF`          aborts the connection, or ends the stream without a terminal event, after a few words
`DROP:2`              aborts the first two streams of the run after a few words, while the run goes on (chatflows
                      and workflows from 1.14 on, whose events can be read again); `DROP`: one
`SILENCE`             sends nothing at all; `MIDSILENCE`: sends nothing more after a few words
`PINGS`               sends only pings
`QUEUE:20`            waits 20 s before the first event; runs in a worker send one ping first
`HEADERS:20`          waits 20 s before the response headers
`GARBAGE`, `BADUTF8`  sends a frame of invalid JSON, or of invalid UTF-8, after a few words
`OVERSIZE:9000000`    sends one event of 9000000 characters, at most 50000000, after a few words
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
