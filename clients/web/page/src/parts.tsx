/** Small parts that several places draw: avatars, icons, a dialog with a form, a line about an error. */

import { Component, type ComponentChildren, type ComponentType } from "preact";
import { useEffect, useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import { hue, initials } from "./names.js";

/** Draws again only when something that it is given is another: for what is drawn by the hundred. */
export function memo<P extends object>(draw: (props: P) => ComponentChildren): ComponentType<P> {
  return class extends Component<P> {
    override shouldComponentUpdate(next: Readonly<P>): boolean {
      return (Object.keys(next) as (keyof P)[]).some((name) => next[name] !== this.props[name]);
    }
    override render(): ComponentChildren {
      return draw(this.props);
    }
  };
}

export function Avatar({ id, name, group = false }: { id: string; name: string; group?: boolean }) {
  return (
    <span class={`avatar hue-${hue(id)}${group ? " avatar-group" : ""}`} aria-hidden="true">
      {initials(name)}
    </span>
  );
}

const paths = {
  pencil: "M4 20l1-4L16 5l3 3L8 19zM14 7l3 3",
  plus: "M12 5v14M5 12h14",
  send: "M4 12l16-8-6 16-3-6-7-2z",
  down: "M6 9l6 6 6-6",
  people: "M9 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM2.5 20c0-3.5 3-6 6.5-6s6.5 2.5 6.5 6M16 4.5a3.5 3.5 0 0 1 0 6.5M18 14.5c2 .8 3.5 2.8 3.5 5.5",
  menu: "M5 12h.01M12 12h.01M19 12h.01",
  close: "M6 6l12 12M18 6L6 18",
  clock: "M12 7v5l3 2M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18z",
  check: "M5 13l4 4L19 7",
  alert: "M12 8v5M12 16.5v.01M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18z",
};

export function Icon({ name }: { name: keyof typeof paths }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={paths[name]} />
    </svg>
  );
}

export function IconButton({ icon, label, onClick }: { icon: keyof typeof paths; label: string; onClick: () => void }) {
  return (
    <button type="button" class="icon-button" aria-label={label} title={label} onClick={onClick}>
      <Icon name={icon} />
    </button>
  );
}

export function ErrorLine({ text }: { text: string | null }) {
  // Always there, so that a screen reader says what comes into it.
  return (
    <p class="error-line" role="alert">
      {text}
    </p>
  );
}

/** A modal dialog: the browser holds the focus in it and closes it with Escape. */
export function Dialog({ title, onClose, children }: { title: string; onClose: () => void; children: ComponentChildren }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  const onBackdrop = (event: MouseEvent): void => {
    if (event.target === dialog.current) dialog.current?.close();
  };
  return (
    <dialog ref={dialog} aria-labelledby="dialog-title" onClose={onClose} onClick={onBackdrop}>
      <div class="dialog-body">
        <header class="dialog-head">
          <h2 id="dialog-title" dir="auto">{title}</h2>
          <IconButton icon="close" label="Close" onClick={() => dialog.current?.close()} />
        </header>
        {children}
      </div>
    </dialog>
  );
}

interface AskFirstProps {
  /** Of the button. */
  class: string;
  question: string;
  /** What is done, in a word; and the way out. */
  yes: string;
  no: string;
  busy: boolean;
  onYes: () => void;
  /** What is on the button. */
  children: ComponentChildren;
}

/**
 * A button for what cannot be taken back: it asks first, in its own place. The focus goes to the way out, which Escape is too, and
 * back to the button from there.
 */
export function AskFirst({ class: look, question, yes, no, busy, onYes, children }: AskFirstProps) {
  const [asks, setAsks] = useState(false);
  const [button, wayOut] = [useRef<HTMLButtonElement>(null), useRef<HTMLButtonElement>(null)];
  const asked = useRef(false);
  const id = useId();
  useLayoutEffect(() => {
    if (asks) wayOut.current?.focus();
    else if (asked.current) button.current?.focus();
    asked.current = asks;
  }, [asks]);
  if (!asks) return <button type="button" class={look} ref={button} onClick={() => setAsks(true)}>{children}</button>;
  return (
    <div
      class="confirm" role="group" aria-labelledby={id}
      onKeyDown={(event) => {
        if (event.key !== "Escape") return;
        // The dialog around it stays.
        event.preventDefault();
        setAsks(false);
      }}
    >
      <span id={id} dir="auto">{question}</span>
      <button type="button" class="danger" aria-busy={busy} onClick={onYes}>{yes}</button>
      <button type="button" ref={wayOut} onClick={() => setAsks(false)}>{no}</button>
    </div>
  );
}

export function Logo() {
  return (
    <svg class="logo" viewBox="0 0 64 64" aria-hidden="true" focusable="false">
      <path d="M50 34c0 11-9 18-19 18S14 45 14 35c0-8 6-14 13-14 6 0 11 4 11 10 0 5-4 9-9 9-4 0-7-3-7-6 0-3 2-5 5-5" />
      <path d="M38 30c2-8 7-13 13-16" />
    </svg>
  );
}
