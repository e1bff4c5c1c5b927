#!/usr/bin/env python3
"""A chat client in plain Python: it logs in, sends once, resumes, and reads what is too much to be replayed.

PASSWORD=… python3 examples/client.py 127.0.0.1:8080 ada

Each line of standard input goes to the lobby; it ends when its input does and all of it is stored. Python has no
WebSocket of its own: `Socket` is as much of one as this needs. docs/PROTOCOL.md is the contract.
"""

import base64
import http.client
import json
import os
import secrets
import socket
import struct
import sys
import threading
import time

EVENTS = {"message", "edit", "delete", "react", "room", "room_gone"}


class Socket:
    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.stream = socket.create_connection((host, int(port)), timeout=20)
        self.input = self.stream.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        self.stream.sendall(f"GET /ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode())
        if b" 101 " not in self.input.readline():
            raise OSError("the server lets nobody in at the moment")
        while self.input.readline().strip():
            pass
        # The server pings every 30 s, so that silence for longer than two pings is a connection that is gone.
        self.stream.settimeout(75)

    def send(self, frame, opcode=1):
        payload = frame if opcode != 1 else json.dumps(frame).encode()
        size = struct.pack("!B", 0x80 | len(payload)) if len(payload) < 126 else struct.pack("!BH", 0xFE, len(payload))
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        self.stream.sendall(bytes([0x80 | opcode]) + size + mask + masked)

    def receive(self):
        while True:
            first, size = self.read(2)
            payload = self.read(struct.unpack("!H", self.read(2))[0] if size == 126 else size)
            if first & 15 == 1:
                return json.loads(payload)
            if first & 15 == 8:
                raise OSError(f"the server closed the connection: {struct.unpack('!H', payload[:2])[0]}")
            if first & 15 == 9:
                self.send(payload, 10)

    def read(self, size):
        data = self.input.read(size)
        if len(data) < size:
            raise OSError("the connection ended")
        return data


class Client:
    def __init__(self, address, user, password):
        self.address, self.token = address, ""
        self.token = self.request("POST", "/login", {"username": user, "password": password})["token"]
        # Everything of this history up to the cursor has been shown. A client that comes back with both gets the rest.
        self.epoch = self.cursor = self.socket = None
        # By nonce, the oldest first. Sent again after a break; the server knows a nonce that it has stored.
        self.unacknowledged, self.places, self.has_input = {}, threading.Semaphore(32), True
        # What is typed is sent by a thread of its own.
        self.lock = threading.Lock()

    def request(self, method, path, body=None):
        connection = http.client.HTTPConnection(self.address, timeout=20)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        connection.request(method, path, body and json.dumps(body), headers)
        answer = connection.getresponse()
        value = json.load(answer)
        if answer.status != 200:
            raise OSError(value["error"]["message"])
        return value

    def send(self, frame):
        try:
            self.socket.send(frame)
        except (AttributeError, OSError):
            pass  # There is no connection: the next one begins with what has no answer.

    def type(self, lines):
        for text in filter(None, map(str.strip, lines)):
            self.places.acquire()
            nonce = secrets.token_hex(16)
            with self.lock:
                self.unacknowledged[nonce] = text
                self.send({"type": "message", "content": text, "nonce": nonce})
        with self.lock:
            self.has_input = False
            self.send({"type": "ping"})  # Its answer wakes `run`, which may have nothing more to wait for.

    def run(self):
        wait = 0.5
        while True:
            try:
                self.connect()
                wait = 0.5
                while self.has_input or self.unacknowledged:
                    self.take(self.socket.receive())
                return
            except (OSError, http.client.HTTPException) as lost:
                print(f"* {lost}; trying again", flush=True)
            time.sleep(wait)
            wait = min(2 * wait, 30)

    def connect(self):
        connection = Socket(self.address)
        resume = {} if self.cursor is None else {"last_id": self.cursor, "epoch": self.epoch}
        connection.send({"type": "auth", "token": self.token, **resume})
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
                connection.send({"type": "message", "content": text, "nonce": nonce})

    def take(self, frame):
        kind, code, nonce = frame["type"], frame.get("code"), frame.get("nonce")
        if kind == "message":
            self.show(frame)
        elif kind == "resync":
            self.read_history(frame["after"], frame["last_id"])
        elif kind == "error" and code == "rate_limited":
            time.sleep(frame.get("retry_after", 1000) / 1000)
            with self.lock:
                if nonce in self.unacknowledged:
                    self.send({"type": "message", "content": self.unacknowledged[nonce], "nonce": nonce})
        elif kind == "error" and code == "unavailable":
            # It may be stored or not: the same nonce, sent again on the next connection, settles it.
            raise OSError("the server cannot store anything at the moment")
        elif kind in ("ack", "error"):
            if kind == "error":
                print(f"* refused: {frame['message']}", flush=True)
            with self.lock:
                if self.unacknowledged.pop(nonce, None) is not None:
                    self.places.release()
        # Of what an id moves the cursor. `ack` and `read` have one too, and may be ahead of what was shown.
        if kind in EVENTS:
            self.cursor = max(self.cursor, frame["id"])

    def read_history(self, after, end):
        # Zero: this is another history than the one that was read, and its newest page is enough.
        is_new = after == 0
        print("* another history begins" if is_new else "* reading what was missed", flush=True)
        while True:
            page = self.request("GET", "/messages" if is_new else f"/messages?after={after}")
            for message in page["messages"]:
                if message["id"] <= end:
                    self.show(message)
            after = page["messages"][-1]["id"] if page["messages"] else end
            if is_new or not page["has_more"] or after >= end:
                self.cursor = end
                return
            self.cursor = after

    def show(self, message):
        print(f"{message['username']}: {message['content']}", flush=True)


if __name__ == "__main__":
    try:
        client = Client(sys.argv[1], sys.argv[2], os.environ["PASSWORD"])
    except OSError as error:
        sys.exit(str(error))
    threading.Thread(target=client.type, args=(sys.stdin,), daemon=True).start()
    client.run()
