"""Two people talk over QUIC while their addresses and connection ids change. Usage: move.py http://HOST:PORT

As talk.py: every check that fails is a traceback, and the last line of the output is JSON for whoever started it.
"""

import asyncio
import json
import sys

import frames
from frames import require
from over_quic import Carrier
from session import Session, http, new_key
from talk import PASSWORD, same

MESSAGES = 80
# Before every so many messages something changes.
EVERY = 8


async def move(base):
    ann, ben = (http(base, "/v1/accounts", {"handle": handle, "password": PASSWORD}) for handle in ("ann", "ben"))
    channel = int(http(base, "/v1/channels/direct", {"user_id": ben["user_id"]}, ann["access_token"])["channel_id"])
    a, b = Session(await Carrier.connect(base)), Session(await Carrier.connect(base))
    await a.hello(ann["access_token"])
    await b.hello(ben["access_token"])
    _, head, *_ = await a.open(channel, 1)
    await b.open(channel, 1)

    texts, changes = [], 0
    for n in range(MESSAGES):
        request, text = a.request(), f"on the move {n}"
        if n % EVERY == EVERY - 1:
            # In the middle of a send: the frame leaves from the old address, its answer finds the new one.
            await a.send(frames.send(request, new_key(), 1, text))
            changes += 1
            if changes % 3 == 1:
                a.carrier.new_connection_id()
            elif changes % 3 == 2:
                await a.carrier.move(f"127.0.0.{changes}")
            else:
                a.carrier.new_connection_id()
                await a.carrier.move(f"127.0.0.{changes}")
            # Who only listens says so from the new address (P-074).
            await b.carrier.move(f"127.0.1.{changes}")
            await asyncio.gather(a.ping(), b.ping())
        else:
            await a.send(frames.send(request, new_key(), 1, text))
        await a.wait(frames.SEND_ACK, request)
        texts.append(text)
    last = head.head_seq + MESSAGES
    await b.delivered(last)
    got = [event.text for _, event in b.pushed if event.kind == 1]
    same(got, texts, "what Ben was given, in order")
    require(changes >= 9, "nothing changed")
    return {"channel": str(channel), "texts": texts}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(move(sys.argv[1]))))
