"""The frames of the Conch protocol for Python, written from docs/protocol.md and nothing else.

The package `conch` is what flatc makes of the schema in section 21; fixed layouts are packed here by `struct`, as drawn.
Nothing in here does IO. A frame is (type, ref, body).
"""

import struct
from dataclasses import dataclass

import flatbuffers
from conch import (
    ChannelHead, ChannelOpened, Error, EventBody, Hello, MessageBody, OpenCursor, PendingSend, Sync, SyncChanges, U64, Welcome,
)

# Section 4.
HELLO, SEND, SEND_MANY, READ, OPEN_CHANNEL, HISTORY, SYNC = 0x01, 0x03, 0x04, 0x09, 0x0C, 0x0E, 0x0F
CREDIT, PING, GOODBYE = 0x11, 0x12, 0x13
WELCOME, DELIVER, EVENT, SEND_ACK, CHANNEL_HEAD = 0x21, 0x22, 0x23, 0x24, 0x25
CHANNEL_OPENED, SYNC_CHANGES, HISTORY_PAGE, ERROR, PONG, GOAWAY = 0x27, 0x28, 0x29, 0x2D, 0x2F, 0x31
KNOWN = {WELCOME, DELIVER, EVENT, SEND_ACK, CHANNEL_HEAD, 0x26, CHANNEL_OPENED, SYNC_CHANGES, HISTORY_PAGE, ERROR, 0x2E, PONG,
         GOAWAY, 0x32, 0x33}

TABLE, BODY_OMITTED = 1, 2
RETRY = 2
HEADER_BYTES = 8
FRAME_BYTES_MAX = 524_288


class Malformed(Exception):
    """The node sent what the protocol does not allow."""


def require(condition, what):
    if not condition:
        raise Malformed(what)


# Section 2.

def frame(frame_type, ref, body=b""):
    return struct.pack("<II", frame_type | len(body) << 8, ref) + body


def split(buffer):
    """The whole frames at the front of `buffer`, and what is left."""
    frames = []
    while len(buffer) >= HEADER_BYTES:
        word, ref = struct.unpack_from("<II", buffer)
        frame_type, length = word & 0xFF, word >> 8
        require(HEADER_BYTES + length <= FRAME_BYTES_MAX, "P-001: a frame is too long")
        require(not frame_type & 0x40, "P-004: a compressed body")
        if len(buffer) < HEADER_BYTES + length:
            break
        if frame_type not in KNOWN:
            require(frame_type & 0x80, f"P-005: frame of type {frame_type:#04x}")
        else:
            frames.append((frame_type, ref, bytes(buffer[HEADER_BYTES:HEADER_BYTES + length])))
        buffer = buffer[HEADER_BYTES + length:]
    return frames, bytes(buffer)


# Section 3.

def number(u64):
    return u64.Lo() | u64.Hi() << 32


def _halves(value):
    return value & 0xFFFF_FFFF, value >> 32


def _text(value):
    return (value or b"").decode("utf-8")


def _bytes(table, name):
    at = getattr(table, name)
    return bytes(at(i) for i in range(getattr(table, name + "Length")()))


# Client → node.

def hello(token, sync_token=None, cursors=(), pending=(), replaces=None, push_mode=0):
    """`cursors`: (channel, generation, seq, alias); `pending`: (channel, key)."""
    builder = flatbuffers.Builder(1024)
    token, client = builder.CreateString(token), builder.CreateString("interop-python/1")
    if sync_token is not None:
        sync_token = builder.CreateByteVector(sync_token)
    Hello.StartCursorsVector(builder, len(cursors))
    for channel, generation, seq, alias in reversed(cursors):
        OpenCursor.CreateOpenCursor(builder, *_halves(channel), generation, seq, alias)
    cursors = builder.EndVector()
    Hello.StartPendingVector(builder, len(pending))
    for channel, key in reversed(pending):
        PendingSend.CreatePendingSend(builder, *_halves(channel), key)
    pending = builder.EndVector()
    Hello.Start(builder)
    Hello.AddToken(builder, token)
    Hello.AddClient(builder, client)
    if sync_token is not None:
        Hello.AddSyncToken(builder, sync_token)
    Hello.AddCursors(builder, cursors)
    Hello.AddPending(builder, pending)
    if replaces is not None:
        Hello.AddReplaces(builder, U64.CreateU64(builder, *_halves(replaces)))
    Hello.AddPushMode(builder, push_mode)
    builder.Finish(Hello.End(builder))
    return frame(HELLO, 0, bytes(builder.Output()))


def open_channel(request, channel, alias, generation=0, seq=0):
    return frame(OPEN_CHANNEL, request, struct.pack("<QIII", channel, generation, seq, alias))


def _send(key, alias, text, retry, mentions):
    flags = (RETRY if retry else 0) | (TABLE if mentions else 0)
    tail = text.encode("utf-8")
    if mentions:
        builder = flatbuffers.Builder(64)
        MessageBody.StartMentionsVector(builder, len(mentions))
        for user in reversed(mentions):
            U64.CreateU64(builder, *_halves(user))
        users = builder.EndVector()
        MessageBody.Start(builder)
        MessageBody.AddMentions(builder, users)
        builder.Finish(MessageBody.End(builder))
        tail = struct.pack("<I", len(tail)) + tail + bytes(builder.Output())
    return struct.pack("<16sIBBH", key, alias, 1, flags, 0) + tail


def send(request, key, alias, text, retry=False, mentions=()):
    return frame(SEND, request, _send(key, alias, text, retry, mentions))


def send_many(request, alias, messages, retry=False):
    """`messages`: (key, text)."""
    items = [_send(key, alias, text, retry, ()) for key, text in messages]
    return frame(SEND_MANY, request, b"".join(struct.pack("<I", len(item)) + item for item in items))


def history(request, channel, first, last, items_max=200, newest=False):
    return frame(HISTORY, request, struct.pack("<QIIHH", channel, first, last, items_max, int(newest)))


def sync(request, token, rows_max=500):
    builder = flatbuffers.Builder(128)
    token = builder.CreateByteVector(token)
    Sync.Start(builder)
    Sync.AddToken(builder, token)
    Sync.AddRowsMax(builder, rows_max)
    builder.Finish(Sync.End(builder))
    return frame(SYNC, request, bytes(builder.Output()))


def read(request, channel, seq):
    return frame(READ, request, struct.pack("<QI", channel, seq))


def credit(grant):
    return frame(CREDIT, 0, struct.pack("<I", grant))


def ping(nonce):
    return frame(PING, nonce)


def goodbye():
    return frame(GOODBYE, 0)


# Node → client.

def welcome(body):
    return Welcome.Welcome.GetRootAs(body)


def error(body):
    return Error.Error.GetRootAs(body)


@dataclass
class Message:
    """An event, from a push or a page."""
    author: int
    seq: int
    time_ms: int
    kind: int
    flags: int
    tail: bytes

    @property
    def text(self):
        require(1 <= self.kind <= 15, "only messages have a text")
        if not self.flags & TABLE:
            return self.tail.decode("utf-8")
        (length,) = struct.unpack_from("<I", self.tail)
        return self.tail[4:4 + length].decode("utf-8")

    @property
    def mentions(self):
        if not self.flags & TABLE:
            return []
        (length,) = struct.unpack_from("<I", self.tail)
        table = MessageBody.MessageBody.GetRootAs(self.tail[4 + length:])
        return [number(table.Mentions(i)) for i in range(table.MentionsLength())]

    @property
    def change(self):
        require(self.kind >= 16, "messages do not change the channel")
        return EventBody.EventBody.GetRootAs(self.tail)


def event(body):
    require(len(body) >= 20, "P-002: an event is too short")
    author, seq, low, high, kind, flags = struct.unpack_from("<QIIHBB", body)
    require(author >> 63 == 0, "an id with bit 63")
    return Message(author, seq, low | high << 32, kind, flags, body[20:])


def acks(body):
    """(seq, time in ms, whether an earlier attempt had stored it) of each message."""
    require(len(body) and len(body) % 12 == 0, "P-002: SEND_ACK is a list of 12 bytes")
    return [(seq, low | high << 32, bool(flags & 1)) for seq, low, high, flags in struct.iter_unpack("<IIHH", body)]


@dataclass
class Page:
    channel: int
    generation: int
    covered_from: int
    covered_to: int
    first_seq: int
    head_seq: int
    events: list


def page(body):
    channel, generation, first, last, first_seq, head_seq, authors, items = struct.unpack_from("<QIIIIIHH", body)
    at = 32
    people = struct.unpack_from(f"<{authors}Q", body, at)
    at += 8 * authors
    events = []
    for index in range(items):
        length, low, high, author, kind, flags, pad = struct.unpack_from("<IIHHBBH", body, at)
        at += 16
        require(pad == 0, "P-003: pad is not zero")
        require(author < authors, "an author that is not listed")
        require(not flags & BODY_OMITTED, "BODY_OMITTED in a page")
        tail = body[at:at + length]
        require(len(tail) == length, "P-002: an item is cut off")
        at += length
        events.append(Message(people[author], first + index, low | high << 32, kind, flags, tail))
    require(at == len(body), "P-002: bytes are left over behind the items")
    require(items == last + 1 - first, "P-040: items do not match the range")
    return Page(channel, generation, first, last, first_seq, head_seq, events)


@dataclass
class Head:
    channel: int
    head_seq: int
    head_ordinal: int
    read_seq: int
    read_ordinal: int

    @property
    def unread(self):
        return self.head_ordinal - self.read_ordinal


def head(body):
    channel, *rest, _mentions = struct.unpack("<QIIIII", body)
    return Head(channel, *rest)


def _head_of(table):
    it = table.Head()
    return Head(number(it.Channel(U64.U64())), it.HeadSeq(), it.HeadOrdinal(), it.ReadSeq(), it.ReadOrdinal())


def opened(body):
    """(alias, head, kind, first_seq, resync)"""
    table = ChannelOpened.ChannelOpened.GetRootAs(body)
    return table.Alias(), _head_of(table), table.Kind(), table.FirstSeq(), table.Resync()


@dataclass
class Changes:
    reset: bool
    more: bool
    rows: dict
    token: bytes


def changes(body):
    table = SyncChanges.SyncChanges.GetRootAs(body)
    rows = [table.Rows(i) for i in range(table.RowsLength())]
    heads = {_head_of(row).channel: _head_of(row) for row in rows}
    return Changes(table.Reset(), table.More(), heads, _bytes(table, "Token"))


def pong(body):
    (position,) = struct.unpack("<Q", body)
    return position
