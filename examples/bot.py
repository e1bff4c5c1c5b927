#!/usr/bin/env python3
"""A bot in thirty lines: it answers `!echo WORDS` in the lobby.

TOKEN=$(chinwag bot add parrot) python3 examples/bot.py http://127.0.0.1:8080
"""

import json
import os
import sys
import time
import urllib.request


def call(path, body=None):
    headers = {"Authorization": "Bearer " + os.environ["TOKEN"], "Content-Type": "application/json"}
    request = urllib.request.Request(sys.argv[1] + path, body and json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


newest = call("/messages?limit=1")["messages"]
cursor = newest[0]["id"] if newest else 0
print("answers what is said after", cursor, flush=True)
while True:
    try:
        page = call(f"/messages?after={cursor}")
        for message in page["messages"]:
            words = message["content"].removeprefix("!echo ")
            if words != message["content"] and not message.get("bot"):
                # By its nonce an answer that has to be sent again is stored once.
                nonce = f"echo-{message['id']}"
                call("/messages", {"content": words, "reply_to": message["id"], "nonce": nonce})
            cursor = message["id"]
    except OSError as error:
        # The server is away or wants it slower; but a token that has ended stays so.
        if getattr(error, "code", None) == 401:
            raise
    time.sleep(1)
