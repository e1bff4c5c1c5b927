#!/usr/bin/env python3
"""A chat client in plain Python: it logs in, sends each line of standard input to the lobby, and shows what is said
there. It sends once, resumes after a break, and reads from the history what is too much to be replayed.

PASSWORD=… python3 examples/client.py 127.0.0.1:8080 ada

docs/PROTOCOL.md is the contract. `Socket` is as much of a WebSocket as this needs, since Python has none of its own.
"""

import base64
import http.client
import json
import os
import secrets
import sys
import threading
import time
import urllib.request

# Only these move the cursor: the `id` of an `ack` or a `read` may be ahead of what has been shown.
EVENTS = {"message", "edit", "delete", "react", "room", "room_gone"}


class Socket:
    def __init__(self, address):
        self.http = http.client.HTTPConnection(address, timeout=20)
        key = base64.b64encode(os.urandom(16)).decode()
        self.http.request("GET", "/ws", headers={"Connection": "Upgrade", "Upgrade": "websocket",
                                                 "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key})
        self.answer = self.http.getresponse()
        if self.answer.status != 101:
            raise OSError("the server lets nobody in at the moment")
        # The server pings every 30 s: a connection that is silent for longer than two pings is dead.
        self.http.sock.settimeout(75)

    def send(self, payload, opcode=1):
        size, mask = len(payload), os.urandom(4)
        head = bytes([0x80 | opcode, 0x80 | min(size, 126)]) + (size.to_bytes(2, "big") if size >= 126 else b"")
        self.http.sock.sendall(head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)))

    def receive(self):
        while True:
            opcode, size = self.read(2)
            if size >= 126:
                size = int.from_bytes(self.read(2 if size == 126 else 8), "big")
            payload = self.read(size)
            if opcode & 15 == 1:
                return json.loads(payload)
            if opcode & 15 == 8:
                raise OSError(f"the server closed the connection: {int.from_bytes(payload[:2], 'big')}")
            if opcode & 15 == 9:
                self.send(payload, 10)

    def read(self, size):
        data = self.answer.fp.read(size)
        if len(data) < size:
            raise OSError("the connection ended")
        return data


class Client:
    def __init__(self, address, user, password):
        self.address, self.token = address, ""
        self.token = self.request("/login", {"username": user, "password": password})["token"]
        self.epoch = self.cursor = self.socket = None
        # Text by nonce, the oldest first: sent again on the next connection. The server stores each nonce once.
        self.unacknowledged, self.has_input = {}, True
        self.lock = threading.RLock()

    def request(self, path, body=None):
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"http://{self.address}{path}", body and json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def send(self, kind, **fields):
        with self.lock:
            try:
                self.socket.send(json.dumps({"type": kind, **fields}).encode())
            except (AttributeError, OSError):
                pass  # There is no connection. The next one begins with what has no answer.

    def type(self, lines):
        for text in filter(None, map(str.strip, lines)):
            if len(text) > 4000:
                print("* refused: over 4,000 characters", flush=True)
                continue
            # At so many the input waits: the server is no faster than its disk.
            while len(self.unacknowledged) >= 32:
                time.sleep(0.1)
            with self.lock:
                nonce = secrets.token_hex(16)
                self.unacknowledged[nonce] = text
                self.send("message", content=text, nonce=nonce)
        self.has_input = False
        self.send("ping")  # The answer wakes `talk`, which may have nothing else to wait for.

    def run(self):
        wait = 0.5
        while self.has_input or self.unacknowledged:
            try:
                self.connect()
                wait = 0.5
                while self.has_input or self.unacknowledged:
                    self.receive(self.socket.receive())
            except (OSError, http.client.HTTPException) as lost:
                print(f"* {lost}; trying again", flush=True)
                time.sleep(wait)
                wait = min(2 * wait, 30)

    def connect(self):
        connection = Socket(self.address)
        auth = {"type": "auth", "token": self.token, "last_id": self.cursor, "epoch": self.epoch}
        connection.send(json.dumps({name: value for name, value in auth.items() if value is not None}).encode())
        welcome = connection.receive()
        if welcome.get("code") == "unauthorized":
            sys.exit("the server does not accept the session any more")
        if welcome["type"] != "auth_success":
            raise OSError("the server lets nobody in at the moment")
        print(f"* {welcome['online']} online", flush=True)
        # The first time there is nothing to resume: the story begins here.
        self.cursor = welcome["last_id"] if self.cursor is None else self.cursor
        self.epoch = welcome["epoch"]
        with self.lock:
            self.socket = connection
            for nonce, text in self.unacknowledged.items():
                self.send("message", content=text, nonce=nonce)

    def receive(self, frame):
        kind, code, nonce = frame["type"], frame.get("code"), frame.get("nonce")
        if kind == "message":
            self.show(frame)
        elif kind == "resync":
            self.read_history(frame["after"], frame["last_id"])
        elif code == "rate_limited":
            time.sleep(frame["retry_after"] / 1000)
            if nonce in self.unacknowledged:
                self.send("message", content=self.unacknowledged[nonce], nonce=nonce)
        elif code == "unavailable":
            # It may be stored or not: the same nonce, sent again on the next connection, settles it.
            raise OSError(frame["message"])
        elif kind in ("ack", "error"):
            if kind == "error":
                print(f"* refused: {frame['message']}", flush=True)
            with self.lock:
                self.unacknowledged.pop(nonce, None)
        if kind in EVENTS:
            self.cursor = max(self.cursor, frame["id"])

    def read_history(self, after, end):
        # Zero: the history is another one than the client knows, and its newest page is enough.
        is_new, more = after == 0, True
        print("* another history begins" if is_new else "* reading what was missed", flush=True)
        while more:
            page = self.request("/messages" if is_new else f"/messages?after={after}")
            for message in page["messages"]:
                if message["id"] <= end:
                    self.show(message)
            more = page["has_more"] and not is_new and page["messages"][-1]["id"] < end
            self.cursor = after = page["messages"][-1]["id"] if more else end

    def show(self, message):
        print(f"{message['username']}: {message['content']}", flush=True)


if __name__ == "__main__":
    client = Client(sys.argv[1], sys.argv[2], os.environ["PASSWORD"])
    threading.Thread(target=client.type, args=(sys.stdin,), daemon=True).start()
    client.run()
