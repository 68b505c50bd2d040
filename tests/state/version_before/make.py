"""Write the state and the pictures of a server into this directory, with the code of the checkout that runs it.

README.md beside this file says when and how this was done.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import copytree
from typing import Any

import httpx2

from openai_dify_proxy_demo import DemoServer
from openai_dify_proxy_demo.replicate import DemoReplicate

HERE = Path(__file__).parent
DIFY = "http://dify.test:8224/v1"
KEY = "a-client-key-of-the-version-before"
PERSONAL_KEY = "a-personal-key-of-the-version-before"
FOR_EVER = "36500d"


def main() -> None:
    with tempfile.TemporaryDirectory() as home, DemoServer(port=8224) as dify, DemoReplicate() as replicate:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": home,
            "PORT": "0",
            "DIFY_API_URL": DIFY,
            "DIFY_API_KEY": "app-demo-chat",
            "API_KEYS": KEY,
            "PERSONAL_KEYS": f"{PERSONAL_KEY}=anna",
            "CONVERSATION_TTL": FOR_EVER,
            "FILE_TTL": FOR_EVER,
            "REPLICATE_API_URL": replicate.url,
            "REPLICATE_API_TOKEN": replicate.token,
            "REPLICATE_OUTPUT_HOSTS": replicate.output_origin,
        }
        program = Path(sys.executable).with_name("openai-dify-proxy")
        server = subprocess.Popen([program, "serve"], cwd=home, env=env, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        for line in server.stdout:
            if "/v1" in line:
                url = next(word for word in line.split() if word.startswith("http"))
                break
        else:
            raise SystemExit("the server did not start")
        facts = write(url.rstrip("."), dify)
        server.send_signal(signal.SIGTERM)
        server.wait()
        copytree(Path(home, ".local/share/openai-dify-proxy"), HERE / "data")
    (HERE / "facts.json").write_text(json.dumps(facts, indent=2) + "\n")


def write(url: str, dify: DemoServer) -> dict[str, Any]:
    """Use the server at ``url``, and return what its clients received."""
    client = httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60)
    anna = httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {PERSONAL_KEY}"}, timeout=60)
    file = client.post("/files", data={"purpose": "user_data"}, files={"file": ("notes.txt", b"Remember the milk.\n")})
    conversation = client.post("/conversations", json={}).json()["id"]
    made = client.post("/images/generations", json={"prompt": "A fox", "size": "256x256", "response_format": "url"})
    picture = made.json()["data"][0]["url"]
    return {
        "key": KEY,
        "personal_key": PERSONAL_KEY,
        "dify": DIFY,
        "chat": chat(client, "My name is Bert.", dify),
        "chat_of_anna": chat(anna, "My name is Anna.", dify),
        "response": respond(client, dify, input="Remember the number 7."),
        "background_response": background(client, dify),
        "conversation": conversation,
        "response_in_conversation": respond(client, dify, input="Remember the number 8.", conversation=conversation),
        "file": file.json(),
        "picture": picture[picture.index("/pictures/") :],
    }


def chat(client: httpx2.Client, question: str, dify: DemoServer) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}]
    reply = client.post("/chat/completions", json={"model": "dify", "messages": messages})
    answer = reply.json()["choices"][0]["message"]["content"]
    return {"question": question, "answer": answer} | of_dify(dify)


def respond(client: httpx2.Client, dify: DemoServer, **fields: Any) -> dict[str, Any]:
    reply = client.post("/responses", json={"model": "dify", **fields})
    return {"response": reply.json()} | of_dify(dify)


def background(client: httpx2.Client, dify: DemoServer) -> dict[str, Any]:
    response = client.post("/responses", json={"model": "dify", "input": "Remember 9.", "background": True}).json()
    while response["status"] in ("queued", "in_progress"):
        response = client.get(f"/responses/{response['id']}").json()
    stream = client.get(f"/responses/{response['id']}", params={"stream": "true"}).text
    return {"response": response, "stream": stream} | of_dify(dify)


def of_dify(dify: DemoServer) -> dict[str, Any]:
    """Return the names of Dify for the last turn."""
    run = dify.log.runs[-1]
    return {"conversation_id": run.conversation_id, "user": run.user}


if __name__ == "__main__":
    main()
