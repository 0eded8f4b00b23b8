"""The carrier of section 5's WebSocket, on the library `websockets`."""

import websockets
from session import Closed
from frames import require

SUBPROTOCOL = "conch.1"
MESSAGE_BYTES_MAX = 540_672


class Carrier:
    # What a close after GOODBYE says.
    DONE = 1000

    def __init__(self, socket):
        self.socket = socket

    @classmethod
    async def connect(cls, base):
        url = base.replace("http", "ws", 1) + "/v1/ws"
        socket = await websockets.connect(
            url, subprotocols=[SUBPROTOCOL], compression=None, ping_interval=None, max_size=MESSAGE_BYTES_MAX)
        require(socket.subprotocol == SUBPROTOCOL, "P-010: the subprotocol was not selected")
        return cls(socket)

    async def send(self, out):
        try:
            await self.socket.send(out)
        except websockets.ConnectionClosed:
            pass  # whoever receives hears of it

    async def receive(self):
        try:
            message = await self.socket.recv()
        except websockets.ConnectionClosed as closed:
            raise Closed(closed.rcvd.code if closed.rcvd else None) from None
        require(isinstance(message, bytes) and message, "P-011: not a binary message")
        return message

    async def ask(self, out):
        await self.send(out)

    def cut(self):
        """The end without a word."""
        self.socket.transport.abort()
