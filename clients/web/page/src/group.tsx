/** A group: its name, who is in it, and leaving it. */

import type { ChannelInfo, ChannelMember, Id } from "@conch/sdk";
import { useEffect, useRef, useState } from "preact/hooks";
import { useFinder, useWork } from "./finding.js";
import { clean } from "./names.js";
import { AskFirst, Avatar, Dialog, ErrorLine } from "./parts.js";
import { useChat } from "./state.js";

export function GroupDialog({ info, title, onClose }: { info: ChannelInfo; title: string; onClose: () => void }) {
  const { client, people } = useChat();
  const { busy, error, run } = useWork();
  const [members, setMembers] = useState<ChannelMember[] | null>(null);
  const list = useRef<HTMLUListElement>(null);
  const load = async (): Promise<void> => {
    const all = await client.members(info.channel);
    for (const it of all) people.learn(it);
    // Offline, who came since the node was asked has no names; they may be known by what they wrote.
    setMembers(all.map((it) => (it.handle === "" ? { ...it, ...people.get(it.user) } : it)).sort(byRoleAndName));
  };
  const remove = (user: Id): void =>
    run(async () => {
      await client.removeMember(info.channel, user);
      await load();
      // What had the focus went with them.
      list.current?.focus();
    });
  useEffect(() => {
    if (info.left) return;
    run(load);
    // Somebody comes or goes while this is open.
    return client.on((event) => {
      if (event.is !== "message" || event.message.channel !== info.channel || !("members" in event.message.content)) return;
      load().catch(() => {});
    });
  }, [client, info.channel, info.left]);
  // Removed while this was open.
  useEffect(() => {
    if (info.left) onClose();
  }, [info.left]);
  const mayManage = info.role !== "member";
  const leave = (): void =>
    run(async () => {
      await client.leave(info.channel);
      onClose();
    });
  return (
    <Dialog title={title} onClose={onClose}>
      {mayManage && <Rename info={info} />}
      <section class="dialog-section" aria-label="Members">
        <h3>{members === null ? "Members" : members.length === 1 ? "1 member" : `${members.length} members`}</h3>
        {members === null && !error && <p class="muted" role="status">Loading…</p>}
        <ul class="members" ref={list} tabIndex={-1} aria-label="Who is in the group">
          {members?.map((it) => (
            <li key={it.user}>
              <Avatar id={it.user} name={nameOf(it)} />
              <span class="member-name">
                <span dir="auto">{nameOf(it)}{it.user === client.user ? " (you)" : ""}</span>
                <span class="muted">{it.handle && `@${it.handle}`}{it.role === "member" ? "" : ` · ${it.role}`}</span>
              </span>
              {mayManage && it.user !== client.user && it.role !== "owner" && (
                <AskFirst
                  class="quiet" question={`Remove ${nameOf(it)} from the group?`} yes="Remove" no="Keep" busy={busy} onYes={() => remove(it.user)}
                >
                  Remove<span class="visually-hidden"> {it.handle || nameOf(it)}</span>
                </AskFirst>
              )}
            </li>
          ))}
        </ul>
        {mayManage && <Add info={info} onAdded={load} />}
      </section>
      <ErrorLine text={error} />
      <AskFirst class="quiet danger-text" question="Leave for good? Somebody has to add you again." yes="Leave" no="Stay" busy={busy} onYes={leave}>
        Leave the group
      </AskFirst>
    </Dialog>
  );
}

const RANK = { owner: 0, admin: 1, member: 2 };
const nameOf = (it: ChannelMember): string => clean(it.displayName, it.handle || "…");
const byRoleAndName = (a: ChannelMember, b: ChannelMember): number => RANK[a.role] - RANK[b.role] || nameOf(a).localeCompare(nameOf(b));

function Rename({ info }: { info: ChannelInfo }) {
  const { client } = useChat();
  const { busy, error, run } = useWork();
  const [title, setTitle] = useState(info.title);
  const [isDone, setDone] = useState(false);
  const isChanged = title.trim() !== "" && title.trim() !== info.title;
  const submit = (event: SubmitEvent): void => {
    event.preventDefault();
    if (!isChanged) return;
    run(async () => {
      const { title: taken } = await client.api.rename(info.channel, title.trim());
      setTitle(taken);
      setDone(true);
    });
  };
  return (
    <form onSubmit={submit}>
      <div>
        <label for="group-title">Name of the group</label>
        <span class="with-button">
          <input id="group-title" name="title" dir="auto" value={title} required maxLength={100} autocomplete="off"
            onInput={(event) => (setTitle(event.currentTarget.value), setDone(false))} />
          <button type="submit" aria-busy={busy} disabled={!isChanged}>Rename</button>
        </span>
        <p class="said" role="status">{isDone && !isChanged ? "Renamed." : ""}</p>
      </div>
      <ErrorLine text={error} />
    </form>
  );
}

function Add({ info, onAdded }: { info: ChannelInfo; onAdded: () => Promise<void> }) {
  const { client } = useChat();
  const { busy, error, run } = useWork();
  const find = useFinder();
  const [handle, setHandle] = useState("");
  const submit = (event: SubmitEvent): void => {
    event.preventDefault();
    run(async () => {
      const person = await find(handle);
      await client.addMembers(info.channel, [person.user]);
      setHandle("");
      await onAdded();
    });
  };
  return (
    <form onSubmit={submit}>
      <div>
        <label for="more-member">Add somebody by handle</label>
        <span class="with-button">
          <input id="more-member" name="member" value={handle} required autocomplete="off" autocapitalize="none" spellcheck={false} maxLength={64}
            placeholder="grace" onInput={(event) => setHandle(event.currentTarget.value)} />
          <button type="submit" aria-busy={busy}>Add</button>
        </span>
      </div>
      <ErrorLine text={error} />
    </form>
  );
}
