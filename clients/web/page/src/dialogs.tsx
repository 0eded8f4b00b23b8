/** A new conversation; one's devices; a word before logging out. */

import type { Device, Id, Person } from "@conch/sdk";
import { useEffect, useRef, useState } from "preact/hooks";
import { useFinder, useWork } from "./finding.js";
import { clean } from "./names.js";
import { AskFirst, Dialog, ErrorLine, Icon } from "./parts.js";
import { route, useChat } from "./state.js";
import { brief, dayName } from "./time.js";

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
  const { busy, error, run } = useWork();
  const find = useFinder();
  const [handle, setHandle] = useState("");
  const submit = (event: SubmitEvent): void => {
    event.preventDefault();
    run(async () => {
      const person = await find(handle);
      const { id } = await client.direct(person.user);
      onDone();
      route.go(id);
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
  const { busy, error, run } = useWork();
  const find = useFinder();
  const [title, setTitle] = useState("");
  const [handle, setHandle] = useState("");
  const [members, setMembers] = useState<Person[]>([]);
  // One key for what is in the form: pressing twice makes one group.
  const [key, setKey] = useState(() => crypto.randomUUID());
  const add = async (): Promise<Person[]> => {
    if (handle.trim() === "") return members;
    const person = await find(handle);
    const isThere = person.user === client.user || members.some((it) => it.user === person.user);
    const more = isThere ? members : [...members, person];
    setMembers(more);
    setHandle("");
    setKey(crypto.randomUUID());
    return more;
  };
  const submit = (event: SubmitEvent): void => {
    event.preventDefault();
    run(async () => {
      const all = await add();
      const { id } = await client.createGroup(title.trim(), all.map((it) => it.user), key);
      onDone();
      route.go(id);
    });
  };
  const leaveOut = (person: Person): void => {
    setMembers(members.filter((other) => other !== person));
    setKey(crypto.randomUUID());
  };
  return (
    <form onSubmit={submit}>
      <label>
        Name of the group
        <input name="title" dir="auto" value={title} required maxLength={100} autoFocus placeholder="Harbour" autocomplete="off"
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
              run(async () => void (await add()));
            }} />
          <button type="button" onClick={() => run(async () => void (await add()))}>Add</button>
        </span>
      </div>
      {members.length > 0 && (
        <ul class="chips" aria-label="Members of the new group">
          {members.map((it) => (
            <li key={it.user}>
              <span dir="auto">{clean(it.displayName, it.handle)}</span>
              <button type="button" aria-label={`Leave out ${it.handle}`} onClick={() => leaveOut(it)}><Icon name="close" /></button>
            </li>
          ))}
        </ul>
      )}
      <ErrorLine text={error} />
      <button class="primary" type="submit" aria-busy={busy}>Make the group</button>
    </form>
  );
}

export function Devices({ onClose }: { onClose: () => void }) {
  const { client } = useChat();
  const { busy, error, run } = useWork();
  const list = useRef<HTMLUListElement>(null);
  const [devices, setDevices] = useState<Device[] | null>(null);
  const load = async (): Promise<void> => setDevices(await client.devices());
  useEffect(() => run(load), []);
  const remove = (device: Id): void =>
    run(async () => {
      await client.removeDevice(device);
      await load();
      // What had the focus went with it.
      list.current?.focus();
    });
  return (
    <Dialog title="Devices" onClose={onClose}>
      <p class="muted">Where you are logged in. Log out what you do not know.</p>
      {devices === null && !error && <p class="muted" role="status">Loading…</p>}
      <ul class="members" ref={list} tabIndex={-1} aria-label="Where you are logged in">
        {devices?.map((it) => (
          <li key={it.device}>
            <span class="member-name">
              <span dir="auto">{clean(it.name, "Unnamed device")}{it.current ? " (this one)" : ""}</span>
              <span class="muted">Since {dayName(it.createdMs).toLocaleLowerCase()}{it.current ? "" : `, last used ${brief(it.seenMs)}`}</span>
            </span>
            {!it.current && (
              <AskFirst
                class="quiet danger-text" question={`Log “${clean(it.name, "Unnamed device")}” out? Somebody has to log in there again.`}
                yes="Log out" no="Keep" busy={busy} onYes={() => remove(it.device)}
              >
                Log out<span class="visually-hidden"> {clean(it.name, "Unnamed device")}</span>
              </AskFirst>
            )}
          </li>
        ))}
      </ul>
      <ErrorLine text={error} />
      {error && <button type="button" class="quiet" onClick={() => run(load)}>Try again</button>}
    </Dialog>
  );
}

/** Logging out forgets what waits here: that is said before. */
export function LogOut({ waiting, onLogOut, onClose }: { waiting: number; onLogOut: () => void; onClose: () => void }) {
  return (
    <Dialog title="Log out?" onClose={onClose}>
      <p>
        {waiting === 1
          ? "One message is not sent yet and will be lost. It goes out by itself once there is a connection."
          : `${waiting.toLocaleString()} messages are not sent yet and will be lost. They go out by themselves once there is a connection.`}
      </p>
      <p class="confirm">
        <button type="button" class="danger" onClick={onLogOut}>Log out and lose {waiting === 1 ? "it" : "them"}</button>
        <button type="button" onClick={onClose} autoFocus>Stay</button>
      </p>
    </Dialog>
  );
}
