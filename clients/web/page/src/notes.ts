/** Events that are no words of people, as sentences. */

import type { Id, Message } from "@conch/sdk";
import { clean } from "./names.js";
import type { People } from "./state.js";

export function describe(message: Message, me: Id, people: People): string {
  const { content } = message;
  const name = (id: Id): string => (id === me ? "you" : people.display(id));
  const start = (id: Id): string => (id === me ? "You" : people.display(id));
  const who = start(message.author);
  const names = (ids: { user: Id }[]): string => {
    const shown = ids.slice(0, 3).map(({ user }) => name(user));
    if (ids.length > 3) shown.push(`${ids.length - 3} more`);
    return shown.length > 1 ? `${shown.slice(0, -1).join(", ")} and ${shown.at(-1)}` : (shown[0] ?? "nobody");
  };
  switch (content.is) {
    case "created":
      return `${who} made the group “${clean(content.title, "Group")}”`;
    case "members-added":
      return `${who} added ${names(content.members)}`;
    case "member-removed":
      return `${who} removed ${names(content.members)}`;
    case "member-left":
      return `${content.members.map(({ user }) => start(user)).join(", ")} left`;
    case "renamed":
      return `${who} renamed the group to “${clean(content.title, "Group")}”`;
    case "payload":
      return content.kind === 2 ? "A picture, which this page cannot show" : "A file, which this page cannot show";
    case "unknown":
      return "Something that this page is too old to show";
    case "text":
      return content.text;
  }
}
