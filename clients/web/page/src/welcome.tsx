/** Sign-up and log-in. */

import { Session } from "@conch/sdk";
import { useState } from "preact/hooks";
import { ErrorLine, Logo } from "./parts.js";
import { server, tokens } from "./state.js";
import { wordsFor } from "./words.js";

export function Welcome({ notice, onSession }: { notice: string | null; onSession: (session: Session) => void }) {
  // Who was logged in a moment ago has an account.
  const [isNew, setNew] = useState(notice === null);
  const [error, setError] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);

  const submit = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    if (busy) return;
    const form = new FormData(event.currentTarget as HTMLFormElement);
    const field = (name: string): string => String(form.get(name) ?? "");
    const handle = field("handle").trim().replace(/^@/, "").toLowerCase();
    const account = { handle, password: field("password"), deviceName: deviceName() };
    setBusy(true);
    setError(null);
    try {
      const displayName = field("display-name").trim();
      onSession(isNew ? await Session.signUp(server, tokens, { ...account, displayName }) : await Session.logIn(server, tokens, account));
    } catch (failure) {
      setError(wordsFor(failure));
      setBusy(false);
    }
  };

  return (
    <main class="welcome">
      <div class="welcome-card">
        <Logo />
        <h1>Conch</h1>
        <p class="muted">{isNew ? "Pick a handle: people find you by it." : "Good to see you again."}</p>
        {notice && <p class="notice" role="status">{notice}</p>}
        <form onSubmit={(event) => void submit(event)}>
          <label>
            Handle
            <input
              name="handle" required autocomplete="username" autocapitalize="none" spellcheck={false} minLength={3} maxLength={33}
              placeholder="ada" autoFocus aria-describedby={isNew ? "handle-hint" : undefined}
            />
          </label>
          {isNew && (
            <p id="handle-hint" class="hint">
              Letters a–z, digits, and _ . -
            </p>
          )}
          {isNew && (
            <label>
              Name <span class="muted">(optional)</span>
              <input name="display-name" autocomplete="name" maxLength={64} placeholder="Ada Lovelace" />
            </label>
          )}
          <label>
            Password
            <input
              name="password" type="password" required minLength={8} maxLength={256}
              autocomplete={isNew ? "new-password" : "current-password"} aria-describedby={isNew ? "password-hint" : undefined}
            />
          </label>
          {isNew && (
            <p id="password-hint" class="hint">
              At least 8 characters.
            </p>
          )}
          <ErrorLine text={error} />
          <button class="primary" type="submit" aria-busy={busy}>
            {busy ? "One moment…" : isNew ? "Sign up" : "Log in"}
          </button>
        </form>
        <p class="switch">
          {isNew ? "Already have an account?" : "New here?"}{" "}
          <button type="button" class="link" onClick={() => (setNew(!isNew), setError(null))}>
            {isNew ? "Log in" : "Sign up"}
          </button>
        </p>
      </div>
    </main>
  );
}

/** How this device is called in the list of devices. */
function deviceName(): string {
  const agent = navigator.userAgent;
  const browser = /Edg\//.test(agent) ? "Edge" : /Firefox\//.test(agent) ? "Firefox" : /Chrome\//.test(agent) ? "Chrome" : "Browser";
  const system = /Android|iPhone|iPad|Windows|Mac OS|Linux/.exec(agent)?.[0] ?? "";
  return system ? `${browser} on ${system}` : browser;
}
