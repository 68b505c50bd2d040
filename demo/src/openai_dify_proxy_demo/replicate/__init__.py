"""A scripted Replicate: its HTTP API, the schemas of real models, and pictures that are drawn, not generated.

The proxy serves it when nothing is configured, and the tests run against it. A picture shows its prompt as a caption
and depends on prompt and seed alone. Initial images, masks, sizes and formats work as in the real models, except that
no picture has more than 2048 pixels a side. Outputs lie on an origin of their own, which records any token sent to it.

Words in capitals in a prompt are commands:

============================  ========================================================================================
`CREDIT`                      the creation is refused: no credit (402)
`THROTTLE:header:2x3`         the first 3 creations with this very prompt are refused (429), with a delay of 2 s in
                              `Retry-After`; `:body` in the body's `retry_after`, `:reset` in `ratelimit-reset`,
                              `:text` only in words, `:none` without one. `THROTTLE` alone is `header:1x1`
`SETTLED`                     `Prefer: wait` is answered at the very end, with links; without this word as soon as there
                              are outputs: still `processing`, the files inlined as data URIs
`COLD:5`, `SLOW:5`            5 s in `starting`, or in `processing`; at most 120 s
`ABORT`, `CANCELED`           the prediction ends so, without a call
`FAIL`                        the model fails: out of memory; `FAIL:PA` interrupted, `FAIL:E1000` unknown
`NSFW`                        fails for its content, unless `disable_safety_checker` is set; `NSFW:all` and `NSFW:E005`
                              in the words of other models
`NSFW_SOME`                   one picture fewer than requested, if more than one is
`PARTIAL`                     outputs come one by one while it is `processing`
`DATAURI`, `FILE`             outputs are data URIs, or files of the API that need the token
`METADATA`                    the picture contains its prompt: text chunks of a PNG, EXIF of others (PNG of the models
                              called Stable Diffusion always do)
`TRANSPARENT`                 the picture has an alpha channel
`UPSCALE<<FAIL SLOW:2>>`      predictions that take this picture as input read these words as their own
============================  ========================================================================================

Faults exist to break clients. These words are commands only with `DemoReplicate(faults=True)`:

============================  ========================================================================================
`CRASH_BEFORE`                error 500 and nothing is created; `CRASH_BEFORE:502` another one
`CRASH_AFTER`                 the same, but the prediction is created and runs
`DROP`                        the prediction is created, and the connection breaks before an answer
`BADJSON`                     it is created, and the answer is broken JSON
`HOLD:5`                      it is created, and the answer comes 5 s later
`POLLCRASH:2`, `BADPOLL:2`    the first 2 polls are answered by error 503, or by broken JSON
`NULL`, `EMPTY`, `OBJECT`     the output is null, an empty list, or an object that holds links
`FOREIGN`                     outputs are at a host that is not the demo's
`MISLABEL`                    name and type name another format than the bytes have
`GONE`                        the output is missing (404)
`NOTAPICTURE`, `SVG`          it is a web page, or an SVG with a script
`TRUNCATED`, `BOMB`           it is half a picture, or a small one that unpacks to 900 million pixels
`CUTBODY`, `SLOWBODY:3`       its body breaks off, or takes 3 s
`HUGE`, `ENDLESS`             it has 40 MB (`HUGE:99000000`: so many bytes, at most 100000000), or never ends
`REDIRECT`                    it is one redirect away; `REDIRECT_PRIVATE` to a private address, `REDIRECT_LOOP` for ever
============================  ========================================================================================

Webhooks are accepted and never called.
"""

from __future__ import annotations

from openai_dify_proxy_demo.replicate.log import ReplicateLog
from openai_dify_proxy_demo.replicate.models import DEMO_DEPLOYMENTS, DEMO_MODELS, DemoModel
from openai_dify_proxy_demo.replicate.server import (
    DEMO_CREDENTIAL,
    DemoReplicate,
    create_demo_replicate,
    create_output_origin,
)
from openai_dify_proxy_demo.replicate.state import DEMO_PACE, INSTANT, ReplicateTiming

__all__ = [
    "DEMO_CREDENTIAL",
    "DEMO_DEPLOYMENTS",
    "DEMO_MODELS",
    "DEMO_PACE",
    "INSTANT",
    "DemoModel",
    "DemoReplicate",
    "ReplicateLog",
    "ReplicateTiming",
    "create_demo_replicate",
    "create_output_origin",
]
