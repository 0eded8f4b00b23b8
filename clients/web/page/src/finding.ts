/** Work that a dialog does: one thing at a time, with what went wrong; and finding people by their handle. */

import { ApiError, type Person } from "@conch/sdk";
import { useState } from "preact/hooks";
import { clean } from "./names.js";
import { useChat } from "./state.js";
import { wordsFor } from "./words.js";

export interface Work {
  busy: boolean;
  error: string | null;
  run: (work: () => Promise<void>) => void;
}

/** Runs one thing at a time; says whether it runs and what went wrong. */
export function useWork(): Work {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);
  const run = (work: () => Promise<void>): void => {
    if (busy) return;
    setBusy(true);
    setError(null);
    work()
      .catch((failure: unknown) => setError(failure instanceof NobodyError ? failure.message : wordsFor(failure)))
      .finally(() => setBusy(false));
  };
  return { busy, error, run };
}

class NobodyError extends Error {
  constructor(handle: string) {
    super(`Nobody has the handle @${clean(handle, "…")}. Check the spelling.`);
  }
}

/** Finds somebody by handle, however it was typed. Throws with words that name the handle. */
export function useFinder(): (typed: string) => Promise<Person> {
  const { client, people } = useChat();
  return async (typed) => {
    const handle = typed.trim().replace(/^@/, "").toLowerCase();
    try {
      const person = await client.userByHandle(handle);
      people.learn(person);
      return person;
    } catch (error) {
      const isNobody = error instanceof ApiError && ["not_found", "invalid_handle", "no_such_route", "bad_request"].includes(error.code);
      throw isNobody ? new NobodyError(handle) : error;
    }
  };
}
