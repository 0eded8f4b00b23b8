/** A new conversation, members of a group, one's devices. */

import { ApiError, type ChannelInfo, type ChannelMember, type Device, type Person } from "@conch/sdk";
import { useEffect, useState } from "preact/hooks";
import { clean } from "./names.js";
import { Avatar, Dialog, ErrorLine } from "./parts.js";
import { route, useChat } from "./state.js";
import { exactTime } from "./time.js";
import { wordsFor } from "./words.js";

/** Runs one thing at a time; says whether it runs and what went wrong. */
function useWork(): { busy: boolean; error: string | null; setError: (error: string | null) => void; run: (work: () => Promise<void>) => void } {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);
  const run = (work: () => Promise<void>): void => {
    if (busy) return;
    setBusy(true);
    setError(null);
    work()
      .catch((failure: unknown) => setError(wordsFor(failure)))
      .finally(() => setBusy(false));
  };
  return { busy, error, setError, run };
}

const handleOf = (typed: string): string => typed.trim().replace(/^@/, "").toLowerCase();

/** Finds somebody by handle. Throws an ApiError with words that name the handle. */
function useFinder(): (typed: string) => Promise<Person> {
  const { client, people } = useChat();
  return async (typed) => {
    const handle = handleOf(typed);
    try {
      const person = await client.api.personByHandle(handle);
      people.learn(person);
      return person;
    } catch (error) {
      const isNobody = error instanceof ApiError && (error.code === "not_found" || error.code === "invalid_handle");
      throw isNobody ? new NobodyError(handle) : error;
    }
  };
}

class NobodyError extends Error {
  constructor(handle: string) {
    super(`Nobody has the handle @${clean(handle, "…")}. Check the spelling.`);
  }
}

const words = (error: unknown): string => (error instanceof NobodyError ? error.message : wordsFor(error));

export function NewConversation({ onClose }: { onClose: () => void }) {
  const [kind, setKind] = useState<"direct" | "group">("direct");
  return (
    <Dialog title="New conversation" onClose={onClose}>
      <div class="tabs" role="group" aria-label="Kind of conversation">
        <button type="button" aria-pressed={kind === "direct"} onClick={() => setKind("direct")}>One person</button>
        <button type="button" aria-pressed={kind === "group"} onClick={() => setKind("group")}>A group</button>
      </div>
      {kind === "direct" ? <NewDirect onDone={onClose} /> : <NewGroup onDone={onClose} />}
    </Dialog>
  );
}

function NewDirect({ onDone }: { onDone: () => void }) {
  const { client } = useChat();
  const { busy, error, setError, run } = useWork();
  const find = useFinder();
  const [handle, setHandle] = useState("");
  const submit = (event: SubmitEvent): void => {
    event.preventDefault();
    run(async () => {
      try {
        const person = await find(handle);
        const { channelId } = await client.api.openDirect(person.userId);
        onDone();
        route.go(channelId);
      } catch (failure) {
        if (!(failure instanceof NobodyError)) throw failure;
        setError(words(failure));
      }
    });
  };
  return (
    <form onSubmit={submit}>
      <label>
        Their handle
        <input
          name="peer" value={handle} onInput={(event) => setHandle(event.currentTarget.value)} required autoFocus
          autocomplete="off" autocapitalize="none" spellcheck={false} placeholder="grace" maxLength={64}
        />
      </label>
      <ErrorLine text={error} />
      <button class="primary" type="submit" aria-busy={busy}>Start</button>
    </form>
  );
}

function NewGroup({ onDone }: { onDone: () => void }) {
  const { client } = useChat();
  const { busy, error, setError, run } = useWork();
  const find = useFinder();
  const [title, setTitle] = useState("");
  const [handle, setHandle] = useState("");
  const [members, setMembers] = useState<Person[]>([]);
  // One key for what is in the form: pressing twice makes one group.
  const [key, setKey] = useState(() => crypto.randomUUID());
  const add = async (): Promise<Person[]> => {
    if (handle.trim() === "") return members;
    const person = await find(handle);
    const isThere = person.userId === client.user || members.some((it) => it.userId === person.userId);
    const more = isThere ? members : [...members, person];
    setMembers(more);
    setHandle("");
    setKey(crypto.randomUUID());
    return more;
  };
  const tried = (work: () => Promise<void>): void =>
    run(async () => {
      try {
        await work();
      } catch (failure) {
        if (!(failure instanceof NobodyError)) throw failure;
        setError(words(failure));
      }
    });
  const submit = (event: SubmitEvent): void => {
    event.preventDefault();
    tried(async () => {
      const all = await add();
      const { channelId } = await client.api.createGroup(title.trim(), all.map((it) => it.userId), key);
      onDone();
      route.go(channelId);
    });
  };
  return (
    <form onSubmit={submit}>
      <label>
        Name of the group
        <input name="title" dir="auto" value={title} required maxLength={100} autoFocus placeholder="Harbour"
          onInput={(event) => (setTitle(event.currentTarget.value), setKey(crypto.randomUUID()))} />
      </label>
      <div>
        <label for="new-member">Members</label>
        <span class="with-button">
          <input id="new-member" name="member" value={handle} autocomplete="off" autocapitalize="none" spellcheck={false} placeholder="grace" maxLength={64}
            onInput={(event) => setHandle(event.currentTarget.value)}
            onKeyDown={(event) => {
              if (event.key !== "Enter" || handle.trim() === "") return;
              event.preventDefault();
              tried(async () => void (await add()));
            }} />
          <button type="button" onClick={() => tried(async () => void (await add()))}>Add</button>
        </span>
      </div>
      {members.length > 0 && (
        <ul class="chips" aria-label="Members of the new group">
          {members.map((it) => (
            <li key={it.userId}>
              <span dir="auto">{clean(it.displayName, it.handle)}</span>
              <button type="button" aria-label={`Leave out ${it.handle}`} onClick={() => setMembers(members.filter((other) => other !== it))}>×</button>
            </li>
          ))}
        </ul>
      )}
      <ErrorLine text={error} />
      <button class="primary" type="submit" aria-busy={busy}>Make the group</button>
    </form>
  );
}

export function Members({ info, onClose }: { info: ChannelInfo; onClose: () => void }) {
  const { client, people } = useChat();
  const { busy, error, setError, run } = useWork();
  const find = useFinder();
  const [members, setMembers] = useState<ChannelMember[] | null>(null);
  const [handle, setHandle] = useState("");
  const [isLeaving, setLeaving] = useState(false);
  const load = async (): Promise<void> => {
    const list = await client.api.members(info.channel);
    for (const it of list) people.learn(it);
    setMembers(list);
  };
  useEffect(() => run(load), [info.channel, info.heldTo]);
  const mayManage = info.role !== "member";
  const add = (event: SubmitEvent): void => {
    event.preventDefault();
    run(async () => {
      try {
        const person = await find(handle);
        await client.api.addMembers(info.channel, [person.userId]);
        setHandle("");
        await load();
      } catch (failure) {
        if (!(failure instanceof NobodyError)) throw failure;
        setError(words(failure));
      }
    });
  };
  const leave = (): void =>
    run(async () => {
      await client.api.removeMember(info.channel, client.user);
      onClose();
    });
  return (
    <Dialog title="Members" onClose={onClose}>
      {members === null && !error && <p class="muted" role="status">Loading…</p>}
      <ul class="members">
        {members?.map((it) => (
          <li key={it.userId}>
            <Avatar id={it.userId} name={clean(it.displayName, it.handle)} />
            <span class="member-name">
              <span dir="auto">{clean(it.displayName, it.handle)}{it.userId === client.user ? " (you)" : ""}</span>
              <span class="muted">@{it.handle}{it.role === "member" ? "" : ` · ${it.role}`}</span>
            </span>
            {mayManage && it.userId !== client.user && it.role !== "owner" && (
              <button type="button" class="quiet" onClick={() => run(async () => (await client.api.removeMember(info.channel, it.userId), load()))}>
                Remove<span class="visually-hidden"> {it.handle}</span>
              </button>
            )}
          </li>
        ))}
      </ul>
      {mayManage && (
        <form onSubmit={add}>
          <div>
            <label for="more-member">Add somebody by handle</label>
            <span class="with-button">
              <input id="more-member" name="member" value={handle} required autocomplete="off" autocapitalize="none" spellcheck={false} maxLength={64}
                placeholder="grace" onInput={(event) => setHandle(event.currentTarget.value)} />
              <button type="submit" aria-busy={busy}>Add</button>
            </span>
          </div>
        </form>
      )}
      <ErrorLine text={error} />
      {isLeaving ? (
        <p class="confirm">
          <span>Leave for good? Somebody has to add you again.</span>
          <button type="button" class="danger" onClick={leave}>Leave</button>
          <button type="button" onClick={() => setLeaving(false)}>Stay</button>
        </p>
      ) : (
        <button type="button" class="quiet danger-text" onClick={() => setLeaving(true)}>Leave the group</button>
      )}
    </Dialog>
  );
}

export function Devices({ onClose }: { onClose: () => void }) {
  const { client } = useChat();
  const { error, run } = useWork();
  const [devices, setDevices] = useState<Device[] | null>(null);
  const load = async (): Promise<void> => setDevices(await client.api.devices());
  useEffect(() => run(load), []);
  return (
    <Dialog title="Devices" onClose={onClose}>
      <p class="muted">Where you are logged in. Log out what you do not know.</p>
      {devices === null && !error && <p class="muted" role="status">Loading…</p>}
      <ul class="members">
        {devices?.map((it) => (
          <li key={it.deviceId}>
            <span class="member-name">
              <span dir="auto">{clean(it.name, "Unnamed device")}{it.current ? " (this one)" : ""}</span>
              <span class="muted">Since {exactTime(it.createdMs)}</span>
            </span>
            {!it.current && (
              <button type="button" class="quiet" onClick={() => run(async () => (await client.api.removeDevice(it.deviceId), load()))}>
                Log out<span class="visually-hidden"> {clean(it.name, "device")}</span>
              </button>
            )}
          </li>
        ))}
      </ul>
      <ErrorLine text={error} />
    </Dialog>
  );
}

/** Logging out forgets what waits here: that is said before. */
export function LogOut({ waiting, onLogOut, onClose }: { waiting: number; onLogOut: () => void; onClose: () => void }) {
  return (
    <Dialog title="Log out?" onClose={onClose}>
      <p>
        {waiting === 1 ? "One message is" : `${waiting} messages are`} not sent yet and will be lost. They go out by themselves once there is a
        connection.
      </p>
      <p class="confirm">
        <button type="button" class="danger" onClick={onLogOut}>Log out and lose them</button>
        <button type="button" onClick={onClose}>Stay</button>
      </p>
    </Dialog>
  );
}
