"""A scripted Replicate: its HTTP API, the schemas of real models, and pictures that are drawn, not generated.

The proxy serves it when no Replicate token is configured, and the tests run against it. A picture shows its prompt as a
caption and depends only on prompt and seed. Initial images, masks, sizes and formats work as in the real models, except
that pictures have at most 2048 pixels per side. A separate origin serves the outputs and logs every token it receives.

Words in capitals in a prompt are commands:

============================  ========================================================================================
`CREDIT`                      the creation is rejected: no credit (402)
`THROTTLE:header:2x3`         the first 3 creations with this exact prompt are rejected (429), with a delay of 2 s in
                              `Retry-After`; `:body` puts it in `retry_after` of the body, `:reset` in
                              `ratelimit-reset`, `:text` in the error text, `:none` omits it. `THROTTLE` alone is
                              `THROTTLE:header:1x1`
`SETTLED`                     `Prefer: wait` returns after the end, with links; without this word it returns as soon as
                              there are outputs, in status `processing` with data URIs
`COLD:5`, `SLOW:5`            spends 5 s in `starting`, or in `processing`; at most 120 s
`ABORT`, `CANCELED`           the prediction ends with this status without a cancel call
`FAIL`                        the model runs out of memory; `FAIL:PA`: interrupted, `FAIL:E1000`: unknown error
`NSFW`                        the safety checker rejects the picture unless `disable_safety_checker` is set; `NSFW:all`
                              and `NSFW:E005` use the error texts of other models
`NSFW_SOME`                   returns one picture fewer if several were requested
`PARTIAL`                     outputs arrive one by one during `processing`
`DATAURI`, `FILE`             outputs are data URIs, or files of the API, which require the token
`METADATA`                    the picture contains its prompt, in PNG text chunks or EXIF (Stable Diffusion models
                              always write the text chunks)
`TRANSPARENT`                 the picture has an alpha channel
`UPSCALE<<FAIL SLOW:2>>`      applies these keywords to predictions that use this picture as input
============================  ========================================================================================

Faults test how clients handle broken servers. These words are commands only with `DemoReplicate(faults=True)`:

============================  ========================================================================================
`CRASH_BEFORE`                returns 500 and creates nothing; a suffix such as `:502` selects another status
`CRASH_AFTER`                 returns 500, but the prediction was created and runs
`DROP`                        creates the prediction, then aborts the connection
`BADJSON`                     creates the prediction, then returns invalid JSON
`HOLD:5`                      creates the prediction, then waits 5 s before it responds
`POLLCRASH:2`, `BADPOLL:2`    the first 2 polls return 503, or invalid JSON
`NULL`, `EMPTY`, `OBJECT`     the output is null, an empty list, or an object that contains links
`FOREIGN`                     outputs are on a host that does not belong to the demo
`MISLABEL`                    file name and content type do not match the format of the picture
`GONE`                        the output is missing (404)
`NOTAPICTURE`, `SVG`          the output is a web page, or an SVG with a script
`TRUNCATED`, `BOMB`           the output is half a picture, or a small file that decodes to 900 million pixels
`CUTBODY`, `SLOWBODY:3`       the download ends halfway, or takes 3 s
`HUGE`, `ENDLESS`             the download has 40 MB (`HUGE:99000000`: that many bytes, at most 100000000), or never
                              ends
`REDIRECT`                    the output is behind a redirect; `REDIRECT_PRIVATE` leads to a private address,
                              `REDIRECT_LOOP` never ends
============================  ========================================================================================

Webhooks are accepted but never called.
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
