from __future__ import annotations

import sys

from openai_dify_proxy.cli.supervision.handover import received, supervise

if __name__ == "__main__":
    sys.exit(supervise(received(sys.argv[1])))
