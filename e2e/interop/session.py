"""A session over any carrier: frames out, frames waited for, credit granted. And the HTTP that comes before it.

A carrier has `send(bytes)`, `receive()` (bytes of whole frames; raises `Closed`), `ask(bytes)` (a HISTORY or SYNC the best
way that the carrier knows; the answer is a frame, or None when it comes among the others) and `cut()`.
"""

import asyncio
import json
import os
import urllib.error
import urllib.request

import frames
from frames import require

# Longest wait for an answer, in seconds.
PATIENCE = 20


class Closed(Exception):
    """The connection ended. `code`: the number of its close, None when it just ended."""

    def __init__(self, code):
        super().__init__(f"closed with {code}")
        self.code = code


class Refused(Exception):
    """An ERROR instead of the answer."""

    def __init__(self, error):
        super().__init__(f"{error.Code()} {error.Detail()}")
        self.code, self.refused_type = error.Code(), error.RefusedType()


def http(base, path, body=None, token=None):
    """docs/http.md: JSON in and out; raises urllib's HTTPError for a refusal."""
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(base + path, data=data, headers=headers)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)


def new_key():
    return os.urandom(16)


class Session:
    def __init__(self, carrier):
        self.carrier = carrier
        self.waiting = []
        self.used = 0
        self.last_request = 0
        self.window = 262_144
        self.pushed = []

    def request(self):
        self.last_request += 1
        return self.last_request

    async def send(self, *out):
        await self.carrier.send(b"".join(out))

    async def wait(self, frame_type, ref=None, what=lambda body: True):
        """The next frame of this type; an ERROR with this ref, or about the connection, is raised."""
        return await asyncio.wait_for(self._wait(frame_type, ref, what), PATIENCE)

    async def _wait(self, frame_type, ref, what):
        looked_at = 0
        while True:
            for index in range(looked_at, len(self.waiting)):
                found, found_ref, body = self.waiting[index]
                if found == frame_type and ref in (None, found_ref) and what(body):
                    del self.waiting[index]
                    return body
                if found == frames.ERROR and frame_type != frames.ERROR and found_ref == (ref or 0):
                    del self.waiting[index]
                    raise Refused(frames.error(body))
            looked_at = len(self.waiting)
            await self._receive()

    async def _receive(self):
        got, rest = frames.split(await self.carrier.receive())
        require(not rest, "P-011: the carrier gave part of a frame")
        for frame_type, ref, body in got:
            if frame_type in (frames.DELIVER, frames.EVENT):
                self.used += frames.HEADER_BYTES + len(body)
                if self.used >= self.window // 2:
                    await self.send(frames.credit(self.used))
                    self.used = 0
                self.pushed.append((ref, frames.event(body)))
            self.waiting.append((frame_type, ref, body))

    # What a client asks.

    async def hello(self, token, **more):
        await self.send(frames.hello(token, **more))
        self.welcome = frames.welcome(await self.wait(frames.WELCOME, 0))
        changes = frames.changes(await self.wait(frames.SYNC_CHANGES, 0))
        self.sync_token = changes.token
        return changes

    async def open(self, channel, alias, generation=0, seq=0):
        request = self.request()
        await self.send(frames.open_channel(request, channel, alias, generation, seq))
        return frames.opened(await self.wait(frames.CHANNEL_OPENED, request))

    async def say(self, alias, text, key=None, retry=False, mentions=()):
        request = self.request()
        await self.send(frames.send(request, key or new_key(), alias, text, retry, mentions))
        (ack,) = frames.acks(await self.wait(frames.SEND_ACK, request))
        return ack

    async def delivered(self, seq):
        """The event that was pushed with this seq."""
        body = await self.wait(frames.DELIVER, None, lambda body: frames.event(body).seq == seq)
        return frames.event(body)

    async def ask(self, request, out, answer_type):
        answer = await asyncio.wait_for(self.carrier.ask(out), PATIENCE)
        if answer is None:
            return await self.wait(answer_type, request)
        frame_type, ref, body = answer
        require(ref == request, "the answer has another request id")
        if frame_type == frames.ERROR:
            raise Refused(frames.error(body))
        require(frame_type == answer_type, f"answered by {frame_type:#04x}")
        return body

    async def history(self, channel, first, last, **more):
        request = self.request()
        out = frames.history(request, channel, first, last, **more)
        return frames.page(await self.ask(request, out, frames.HISTORY_PAGE))

    async def sync(self, token):
        request = self.request()
        return frames.changes(await self.ask(request, frames.sync(request, token), frames.SYNC_CHANGES))

    async def ping(self):
        nonce = self.request()
        await self.send(frames.ping(nonce))
        return frames.pong(await self.wait(frames.PONG, nonce))

    async def ended(self):
        """The number of the close that ends this connection."""
        try:
            while True:
                await asyncio.wait_for(self._receive(), PATIENCE)
        except Closed as closed:
            return closed.code
