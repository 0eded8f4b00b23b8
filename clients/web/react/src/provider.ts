/** The client of a tree of components: opened and closed with it, or given to it. */

import { Client, type ClientOptions, type Session } from "@conch/sdk";
import { type ReactNode, createContext, createElement, useContext, useEffect, useState } from "react";

const ClientContext = createContext<Client | null>(null);

/** What {@link ConchProvider} takes. */
export interface ConchProviderProps {
  /** The client that the hooks below use; see {@link useConch}. */
  client: Client;
  /** The tree. */
  children?: ReactNode;
}

/** Gives a client to the hooks below it. Does not close it. */
export function ConchProvider({ client, children }: ConchProviderProps): ReactNode {
  return createElement(ClientContext.Provider, { value: client }, children);
}

/** The client of the nearest {@link ConchProvider}. Throws without one. */
export function useClient(): Client {
  const client = useContext(ClientContext);
  if (!client) throw new Error("a hook of @conch/react is used outside of <ConchProvider>");
  return client;
}

/** What {@link useConch} gives. */
export interface Conch {
  /** The client once it is open; null before, and without a session. */
  client: Client | null;
  /** Why it cannot be opened: there is no WebSocket here. */
  error: Error | null;
}

/**
 * Opens a client of the session, closes it when the component goes or the session is another one. `options` are those of the
 * moment when it is opened; a change of them alone changes nothing.
 */
export function useConch(session: Session | null, options?: ClientOptions): Conch {
  const [conch, setConch] = useState<Conch & { session: Session | null }>({ session: null, client: null, error: null });
  useEffect(() => {
    if (!session) return;
    let isGone = false;
    // Closed also when it opens after the component went.
    const opening = Client.open(session, options);
    opening.then(
      (client) => !isGone && setConch({ session, client, error: null }),
      (error: unknown) => !isGone && setConch({ session, client: null, error: error instanceof Error ? error : new Error(String(error)) }),
    );
    return () => {
      isGone = true;
      opening.then((client) => client.close(), () => {});
    };
    // eslint-disable-next-line react-hooks/exhaustive-deps -- see above
  }, [session]);
  // A client of the session before is being closed.
  return conch.session === session ? { client: conch.client, error: conch.error } : { client: null, error: null };
}
