"""What the demo says about itself."""

from __future__ import annotations

from typing import Final

OPENING: Final = "Hello! This is the demo. Ask me anything."
"""The opening statement of the chat apps. The model does not receive it."""

QUESTION: Final = "What can you do?"
"""The question that `ANSWER` answers."""

SUGGESTIONS: Final = (QUESTION, "THINK about the sea, CITE a source and DRAW a lighthouse at dusk.")
"""The suggested questions of the chat apps."""

ANSWER: Final = """\
I am a scripted Dify app that needs no model. I repeat your message, and words in capitals change my answer:

| In the message | Effect |
|---|---|
| `THINK` | reasoning before the answer |
| `CITE` | sources below the answer |
| `DRAW` | a picture |
| `SLOW:20x200` | a slow answer, which you can stop |
| `ERROR:rate` | the error of a model provider |

Attach files, and I name those that I received. Send tools or a JSON schema, and I use them."""
