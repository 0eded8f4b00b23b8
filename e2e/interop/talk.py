"""Two people talk over one carrier, and every step is checked. Usage: talk.py websocket|quic http://HOST:PORT

The last line of the output is JSON for whoever started it: the channel, and the texts that must be in it, in order.
Every check that fails is a traceback and exit status 1.
"""

import asyncio
import json
import sys

import frames
from frames import number, require
from session import Refused, Session, http, new_key

PASSWORD = "correct horse battery"


def same(is_, wanted, what):
    require(is_ == wanted, f"{what}: {is_!r}, not {wanted!r}")


async def talk(connect, base):
    ann, ben = (http(base, "/v1/accounts", {"handle": handle, "password": PASSWORD}) for handle in ("ann", "ben"))
    channel = int(http(base, "/v1/channels/direct", {"user_id": ben["user_id"]}, ann["access_token"])["channel_id"])

    a, b = Session(await connect(base)), Session(await connect(base))
    changes = await a.hello(ann["access_token"])
    same(number(a.welcome.User()), int(ann["user_id"]), "who I am")
    same(number(a.welcome.Device()), int(ann["device_id"]), "which device I am")
    require(a.welcome.Generation() != 0 and not a.welcome.Resumed(), "a fresh device")
    require(changes.reset and channel in changes.rows, "the channel is in the first listing")
    await b.hello(ben["access_token"])
    alias, head, kind, first_seq, resync = await a.open(channel, 1)
    same((alias, kind, first_seq, resync), (1, 1, 1, False), "the opened channel")
    # The event that made it may have opened it for Ben already, under the node's alias (P-022).
    ben_alias, *_ = await b.open(channel, 1)

    # A message is acknowledged with its place, and delivered at that place.
    texts = ["hello from Python ½"]
    key = new_key()
    seq, time_ms, dup = await a.say(1, texts[0], key)
    same((seq, dup), (head.head_seq + 1, False), "the place of the first message")
    got = await b.delivered(seq)
    same((got.text, got.author, got.time_ms), (texts[0], int(ann["user_id"]), time_ms), "what Ben got")

    # The same key again is the same message.
    same(await a.say(1, texts[0], key, retry=True), (seq, time_ms, True), "the repeated send")
    try:
        await a.say(1, "something else", key, retry=True)
        raise frames.Malformed("P-031: a key took a second content")
    except Refused as refused:
        same((refused.code, refused.refused_type), (4404, frames.SEND), "a key used twice")

    # Several at once, with one place after the other; one with a mention; one back.
    request, many = a.request(), [(new_key(), f"burst {n}") for n in range(3)]
    await a.send(frames.send_many(request, 1, many))
    acks = frames.acks(await a.wait(frames.SEND_ACK, request))
    same([ack[0] for ack in acks], [seq + 1, seq + 2, seq + 3], "the places of a burst")
    texts += [text for _, text in many]
    seq, *_ = await a.say(1, "@ben look", mentions=[int(ben["user_id"])])
    same((await b.delivered(seq)).mentions, [int(ben["user_id"])], "who is mentioned")
    seq, *_ = await b.say(ben_alias, "I see")
    same((await a.delivered(seq)).text, "I see", "the answer")
    texts += ["@ben look", "I see"]

    # The log is the truth, from either end of it.
    page = await b.history(channel, 1, 0xFFFF_FFFE)
    same((page.covered_from, page.covered_to, page.head_seq), (1, seq, seq), "the whole log")
    same([it.text for it in page.events if it.kind < 16], texts, "the texts of the log")
    created = page.events[0]
    same((created.kind, created.change.ChannelKind(), created.change.MembersLength()), (16, 1, 2), "how it began")
    newest = await a.history(channel, 1, seq, items_max=2, newest=True)
    same([it.text for it in newest.events], texts[-2:], "the newest two")
    try:
        await a.history(channel, 5, 4)
        raise frames.Malformed("HISTORY of an empty range was answered")
    except Refused as refused:
        same((refused.code, refused.refused_type), (4405, frames.HISTORY), "an empty range")

    # Reading moves the mark, and a large message comes by reference.
    await a.send(frames.read(a.request(), channel, seq))
    marked = frames.head(await a.wait(frames.CHANNEL_HEAD, None, lambda body: frames.head(body).read_seq == seq))
    same((marked.channel, marked.unread), (channel, 0), "the mark")
    large = "large " + "x" * 60_000
    seq, *_ = await a.say(1, large)
    texts.append(large)
    omitted = await b.delivered(seq)
    require(omitted.flags & frames.BODY_OMITTED, "a large body was pushed")
    same(int.from_bytes(omitted.tail, "little"), len(large), "the length in its place")
    same((await b.history(channel, seq, seq)).events[0].text, large, "the large body")

    # What changed since: the channel.
    position = await b.ping()
    require(position > number(b.welcome.InboxPosition()), "PONG's position moved with the messages")
    changes = await b.sync(b.sync_token)
    same((changes.reset, changes.rows[channel].head_seq), (False, seq), "what changed")

    # Refusals that concern one request leave the rest alone.
    try:
        await a.say(77, "to nobody")
        raise frames.Malformed("a send on an alias that was never opened was taken")
    except Refused as refused:
        same((refused.code, refused.refused_type), (4408, frames.SEND), "an alias that is not open")

    # The connection breaks with a send on the way: whatever became of it, it is there once after the resume.
    key, lost = new_key(), "sent into a breaking connection"
    await a.send(frames.send(a.request(), key, 1, lost))
    session = number(a.welcome.Session())
    a.carrier.cut()
    a = Session(await connect(base))
    await a.hello(
        ann["access_token"], sync_token=changes.token, cursors=[(channel, b.welcome.Generation(), seq, 9)],
        pending=[(channel, key)], replaces=session)
    answer = a.welcome.Pending(0)
    require(answer.State() in (1, 2), "the outcome is known")
    alias, head, *_ = frames.opened(await a.wait(frames.CHANNEL_OPENED, 0))
    same(alias, 9, "the cursor's alias")
    if answer.State() == 2:
        seq, *_ = await a.say(9, lost, key, retry=True)
    else:
        seq = answer.Seq()
    texts.append(lost)
    same((await b.delivered(seq)).text, lost, "what the break left behind")

    # A farewell; and a token that is none.
    await a.send(frames.goodbye())
    same(await a.ended(), a.carrier.DONE, "the close after GOODBYE")
    stranger = Session(await connect(base))
    try:
        await stranger.hello("not a token")
        raise frames.Malformed("HELLO without a valid token was welcomed")
    except Refused as refused:
        same((refused.code, refused.refused_type), (4500, frames.HELLO), "a wrong token")
    same(await stranger.ended(), 4500, "the close after a wrong token")
    page = await b.history(channel, 1, 0xFFFF_FFFE)
    same([it.text for it in page.events if it.kind < 16], texts, "the log at the end")
    return {"channel": str(channel), "texts": texts}


def carrier(name):
    if name == "websocket":
        from over_websocket import Carrier
    elif name == "quic":
        from over_quic import Carrier
    else:
        sys.exit(__doc__)
    return Carrier.connect


if __name__ == "__main__":
    print(json.dumps(asyncio.run(talk(carrier(sys.argv[1]), sys.argv[2]))))
