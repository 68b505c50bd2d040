"""A scripted Dify: it speaks Dify's service API as recorded servers do, and needs no model.

It is what newcomers meet when nothing is configured, and what the tests talk to. Each app of
DEMO_APPS repeats what it is asked and says what it remembers. Its key picks it; a version of DIALECTS
behind the key, such as `@1.13`, makes it answer in the manner of that version of Dify.

Words in capitals in a question make it do something else:

====================  ===============================================================================
`SAY<<text>>`         answers exactly this text
`EMPTY`               answers nothing
`LONG:20000`          answers 20000 characters
`CJK`                 answers in several scripts, with an emoji and Unicode line separators
`RECALL`              says what its model was sent of earlier turns: a line of JSON, `["user", "hello"]`, for each
`SLOW:30x500`         says 30 ticks, one each 500 ms; with SAY, each piece of that text takes so long
`THINK`               thinks in a `<think>` block first; in a New Agent, in its thoughts
`THINK:separated`     thinks apart from the answer, where the app's version can do that
`TOOL`                an agent calls a tool
`FILE`                makes a picture
`CITE`                cites two documents, one with a web address
`MODERATE`            the answer is replaced after it was said
`RETRY`               a graph's model fails after some words and starts anew
`PARTIAL`             a graph's model node fails and the graph goes on
`PAUSE`               the app asks a human and waits
`ANNOTATION`          an annotation answers in the model's place
`ERROR`, `MIDERROR`   the model fails before, or after, the first words; `ERROR:rate`, `:auth`, `:conn`,
                      `:internal` and `:raw` say how
`ERROR:limit`         the request is refused: also `:provider`, `:quota`, `:disabled`, `:crash`, `:nginx`
`CUT`, `EOF`          the connection breaks, or the stream just ends, after some words
`SILENCE`             never a byte; `MIDSILENCE`: nothing more after some words
`PINGS`               nothing but pings
`QUEUE:20`            waits 20 s in a queue: a graph that has a worker pings once before it
`HEADERS:20`          keeps the headers back for 20 s
`GARBAGE`, `BADUTF8`  a frame of broken JSON, or of broken UTF-8, after some words
`OVERSIZE:9000000`    one event with 9000000 characters, after some words
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
