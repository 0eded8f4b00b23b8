/** A list over a client of the test's own, for the test beside it. */

import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { ConchProvider, useInfiniteScroll, useMessages } from "../../src/index.js";
import { FakeClient, textOf } from "../fake-client.js";

const COUNT = 600;
// Rows of all heights.
const fake = new FakeClient([COUNT - 99, COUNT], (seq) => `m${seq} ${"word ".repeat((seq * 7919) % 60)}`);

/** How often the button has led to the newest message. */
const arrived = { times: 0 };

function List() {
  const messages = useMessages("1", { page: 40, max: 200 });
  const { ref, toNewest } = useInfiniteScroll(messages);
  return (
    <>
      <div id="box" ref={ref} style={{ height: 500, width: 300, overflowY: "auto" }}>
        {messages.messages.map((it) => (
          <p key={it.seq} data-seq={it.seq} style={{ margin: 4 }}>{textOf(it)}</p>
        ))}
      </div>
      <button onClick={() => void toNewest().then(() => (arrived.times += 1))}>Newest</button>
    </>
  );
}

Object.assign(window, { fake, arrived });
createRoot(document.getElementById("app")!).render(
  <StrictMode><ConchProvider client={fake.client}><List /></ConchProvider></StrictMode>,
);
