"""The carrier of section 5's QUIC, on the library `aioquic`."""

import asyncio
import hashlib
import socket
import ssl
from urllib.parse import urlsplit

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from cryptography.hazmat.primitives.serialization import Encoding

import frames
from frames import require
from session import Closed, http

ALPN = "conch/1"
CONTROL = 0
# How long the close may come after the end of the control stream (P-077), in seconds.
CLOSE_WAIT = 2


class Protocol(QuicConnectionProtocol):
    """Sorts what comes into the control stream and the answers of request streams."""

    def __init__(self, quic):
        super().__init__(quic)
        self.control = bytearray()
        self.control_ended = False
        self.closed = None
        self.news = asyncio.Event()
        self.answers = {}

    def quic_event_received(self, event):
        if isinstance(event, events.StreamDataReceived):
            if event.stream_id == CONTROL:
                self.control += event.data
                self.control_ended |= event.end_stream
            elif event.stream_id in self.answers:
                answer, future = self.answers[event.stream_id]
                answer += event.data
                if event.end_stream and not future.done():
                    future.set_result(bytes(answer))
        elif isinstance(event, events.StreamReset):
            if event.stream_id == CONTROL:
                self.control_ended = True
            elif event.stream_id in self.answers:
                self.answers[event.stream_id][1].set_exception(frames.Malformed("a request stream was reset"))
        elif isinstance(event, events.ConnectionTerminated):
            # A close of the application has no frame type; what QUIC ends by itself carries no number of ours.
            self.closed = Closed(event.error_code if event.frame_type is None else None)
            for _, future in self.answers.values():
                if not future.done():
                    future.set_exception(self.closed)
        self.news.set()


class Carrier:
    # What a close after GOODBYE says.
    DONE = 0

    def __init__(self, protocol):
        self.protocol = protocol
        self.quic = protocol._quic

    @classmethod
    async def connect(cls, base, ip="127.0.0.1"):
        node = http(base, "/v1/node")["quic"]
        require(urlsplit(base).scheme == "http", "P-065: only development is spoken here, by the certificate's hash")
        configuration = QuicConfiguration(
            is_client=True, alpn_protocols=[ALPN], server_name="localhost", verify_mode=ssl.CERT_NONE, idle_timeout=60)
        protocol = Protocol(QuicConnection(configuration=configuration))
        self = cls(protocol)
        await self.move(ip)
        protocol.connect((urlsplit(base).hostname, node["port"]))
        await protocol.wait_connected()
        certificate = protocol._quic.tls._peer_certificate.public_bytes(Encoding.DER)
        require(
            hashlib.sha256(certificate).hexdigest() == node["certificate_sha256"].lower(), "P-065: it is another certificate")
        require(protocol._quic.get_next_available_stream_id() == CONTROL, "P-066: the control stream is the first")
        return self

    async def move(self, ip):
        """Goes on from a new address and port, as after a change of network."""
        old = getattr(self.protocol, "_transport", None)
        new = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        new.bind((ip, 0))
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self.protocol, sock=new)
        if old:
            old.close()

    def new_connection_id(self):
        self.protocol.change_connection_id()

    async def send(self, out):
        if self.protocol.closed is None:
            self.quic.send_stream_data(CONTROL, out)
            self.protocol.transmit()

    def _whole(self):
        """Takes the whole frames off the front of the control stream (P-066)."""
        control, end = self.protocol.control, 0
        while len(control) >= end + frames.HEADER_BYTES:
            length = frames.HEADER_BYTES + (int.from_bytes(control[end:end + 4], "little") >> 8)
            if len(control) < end + length:
                break
            end += length
        out = bytes(control[:end])
        del control[:end]
        return out

    async def receive(self):
        protocol = self.protocol
        while True:
            protocol.news.clear()
            out = self._whole()
            if out:
                return out
            if protocol.closed:
                raise protocol.closed
            try:
                await asyncio.wait_for(protocol.news.wait(), CLOSE_WAIT if protocol.control_ended else None)
            except asyncio.TimeoutError:
                protocol.close()
                raise Closed(None) from None

    async def ask(self, out):
        """One frame on a stream of its own; the answer is one frame on the same stream (P-068)."""
        stream = self.quic.get_next_available_stream_id()
        future = asyncio.get_running_loop().create_future()
        self.protocol.answers[stream] = (bytearray(), future)
        self.quic.send_stream_data(stream, out, end_stream=True)
        self.protocol.transmit()
        answer, rest = frames.split(await future)
        require(len(answer) == 1 and not rest, "P-068: the answer is not one frame")
        return answer[0]

    def cut(self):
        """The end without a word: nothing is sent or heard any more."""
        self.protocol._timer and self.protocol._timer.cancel()
        self.protocol.transmit = lambda: None
        self.protocol._transport.abort()
