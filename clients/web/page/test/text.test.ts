/** Text is text, whatever stands in it. */

import { request } from "node:http";
import { describe, expect, it } from "vitest";
import { until } from "./node.js";
import { PASSWORD, field, placed } from "./people.js";
import { Stage } from "./stage.js";

const stage = Stage.forTests();

describe("text is text", () => {
  const CORPUS = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "\"><svg/onload=alert(1)>",
    "javascript:alert(1)",
    "<a href=\"javascript:alert(1)\">x</a>",
    "{{constructor.constructor('alert(1)')()}}",
    "</textarea><iframe srcdoc=\"<script>parent.alert(1)</script>\">",
    "<style>*{display:none}</style>",
    "&lt;b&gt;&amp;",
    "\u202Egnp.exe\u202C",
    `z${"\u0301".repeat(10_000)}algo`,
    "<math><mtext></p><style><img src onerror=alert(1)>",
    "[click](javascript:alert(1)) ![x](x\" onerror=\"alert(1)) <javascript:alert(1)> `<b>`",
    "data:text/html,<script>alert(1)</script>",
    "@<img src=x onerror=alert(1)> @ada",
  ];
  /** What there would be if anything of somebody's words were markup. */
  const MARKUP = "img, script:not([src]), iframe, object, embed, style, base, meta[http-equiv], math, .bubble a, .bubble svg, .bubble b, [onerror], [onload], a[href^='javascript' i], a[href^='data' i]";

  it("nothing of the corpus is ever HTML, as a message, a name or a title (A41)", async () => {
    const [ada, grace] = await Promise.all([stage.person("Ada", "<img src=x onerror=alert(1)>"), stage.person("Grace", "<b>Grace</b>")]);
    await ada.page.getByRole("button", { name: "New conversation" }).click();
    await ada.page.getByRole("button", { name: "A group" }).click();
    await ada.page.getByLabel("Name of the group").fill("<script>alert(1)</script>");
    await ada.page.getByLabel("Members").fill(grace.handle);
    await ada.page.getByRole("button", { name: "Make the group" }).click();
    await field(ada.page).waitFor();
    for (const text of CORPUS) await ada.say(text);
    await grace.open(/script/);
    for (const who of [ada, grace]) {
      await until("all of it is there", async () => (await placed(who.page)).length === CORPUS.length);
      const shown = await placed(who.page);
      CORPUS.forEach((text, i) => expect(shown[i]!.startsWith(text.slice(0, 2_000))).toBe(true));
      expect(await who.page.locator(MARKUP).count()).toBe(0);
    }
    // A tower of marks does not leave its bubble.
    const heights = await grace.page.locator(".row-bubble").evaluateAll((rows) => rows.map((row) => row.getBoundingClientRect().height));
    expect(Math.max(...heights)).toBeLessThan(400);
  });

  it("nor is it a device's name, a handle that was typed, a draft, a file, a mention, a title that changes (A41)", async () => {
    const BAD = "<img src=x onerror=alert(1)>";
    const author = await stage.author("Mallory", BAD);
    const ada = await stage.person("Ada", BAD);
    const channel = await author.group(BAD, [ada.handle]);
    await author.mention(channel, `hello @${BAD}`, [ada.handle]);
    await author.file(channel, `"><svg onload=alert(1)>.svg`);
    const clean = async (where: string): Promise<void> => {
      expect([where, await ada.page.locator(MARKUP).count()]).toEqual([where, 0]);
    };
    await ada.open(BAD);
    await until("words and file are there", async () => (await placed(ada.page)).length === 2);
    expect(await placed(ada.page)).toEqual([`hello @${BAD}`, "A file, which this page cannot show"]);
    await author.rename(channel, `</title><script>alert(1)</script>${BAD}`.slice(0, 100));
    await ada.page.getByRole("log").getByText("renamed the group to “</title>").waitFor();
    await ada.page.getByRole("heading", { name: "</title>" }).first().waitFor();
    await clean("the conversation");
    await ada.page.getByRole("button", { name: "Members" }).click();
    await until("both are listed", async () => (await ada.page.locator(".members li").count()) === 2);
    await clean("its members");
    await ada.page.getByRole("button", { name: "Close" }).click();
    await field(ada.page).fill(`</textarea>${BAD}`);
    await ada.close();
    await ada.page.getByText("Draft: ").waitFor();
    await clean("the list, with a draft");
    await ada.page.getByRole("button", { name: "New conversation" }).click();
    await ada.page.getByLabel("Their handle").fill(BAD);
    await ada.page.getByRole("button", { name: "Start" }).click();
    await ada.page.getByRole("alert").filter({ hasText: "Nobody has the handle @<img" }).waitFor();
    await clean("a handle that nobody has");
    await ada.page.keyboard.press("Escape");
    const said = await fetch(`${stage.node.url}/v1/sessions`, {
      method: "POST", headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ handle: ada.handle, password: PASSWORD, device_name: BAD, platform: BAD.slice(0, 20) }),
    });
    expect(said.status).toBe(201);
    await ada.menu("Devices");
    await ada.page.locator(".members li", { hasText: BAD }).waitFor();
    await clean("the devices");
  });

  it("names that want to turn or break their surroundings stand in one line, isolated and clipped", async () => {
    // What the node does not take is refused in words; what it takes is still tamed here.
    const stranger = await stage.stranger();
    for (const name of ["\u202Egnp.exe\u202C Lovelace", "\u2066x", "\u200b\u2800", "a\u0007b"]) {
      await stranger.page.getByLabel("Handle").fill("plain.handle");
      await stranger.page.getByLabel("Name (optional)").fill(name);
      await stranger.page.getByLabel("Password").fill(PASSWORD);
      await stranger.page.getByRole("button", { name: "Sign up" }).click();
      await stranger.page.getByRole("alert").filter({ hasText: "A name has 1 to 64 characters" }).waitFor();
    }
    const [turned, high, wide] = await Promise.all([
      stage.person("Ada", "\u05d0\u05d1\u05d2 (Ada) \u05d3\u05d4"),
      stage.person("Grace", `A${"\u0489".repeat(63)}`),
      stage.person("Linus", "\ufdfd".repeat(60)),
    ]);
    await turned.page.getByRole("button", { name: "New conversation" }).click();
    await turned.page.getByRole("button", { name: "A group" }).click();
    await turned.page.getByLabel("Name of the group").fill(`\u202Eelttil${"\u0489".repeat(80)}`);
    for (const who of [high, wide]) {
      await turned.page.getByLabel("Members", { exact: true }).fill(who.handle);
      await turned.page.getByLabel("Members", { exact: true }).press("Enter");
      await turned.page.getByRole("button", { name: `Leave out ${who.handle}` }).waitFor();
    }
    await turned.page.getByRole("button", { name: "Make the group" }).click();
    await field(turned.page).waitFor();
    for (const who of [high, wide]) await who.open(/elttil/);
    await turned.say(`z${"\u0301".repeat(10_000)}algo`);
    await high.say("\u202Eright to left for ever");
    await wide.say("\ufdfd".repeat(100));
    for (const who of [turned, high, wide]) {
      await until("all of it is there", async () => (await placed(who.page)).length === 3);
      await who.page.getByRole("button", { name: "Members" }).click();
      await until("three members", async () => (await who.page.locator(".members li").count()) === 3);
      const odd = await who.page.evaluate(() => {
        const bad = /[\u202a-\u202e\u2066-\u2069]/u;
        const lines = ".entry-title, .entry-line, .conversation-title h2, .author, .member-name > *, #dialog-title, .note";
        const found: string[] = [];
        for (const it of document.querySelectorAll<HTMLElement>(lines)) {
          const text = it.textContent ?? "";
          if (bad.test(text) || /\p{M}{3}/u.test(text)) found.push(`${it.className || it.tagName}: ${JSON.stringify(text)}`);
          if (it.textContent!.trim() === "" && !it.matches(".entry-line")) found.push(`${it.className}: empty`);
          if (!it.matches(".note") && it.getBoundingClientRect().height > 40) found.push(`${it.className || it.tagName} is ${it.getBoundingClientRect().height} high`);
        }
        const rows = [...document.querySelectorAll<HTMLElement>(".row-bubble")];
        for (const row of rows) if (row.getBoundingClientRect().height > 200) found.push(`a row is ${row.getBoundingClientRect().height} high`);
        // A bubble's text ends with its bubble: direction and towers do not leave it.
        for (const it of document.querySelectorAll(".bubble")) {
          const { overflowX, overflowY, unicodeBidi } = getComputedStyle(it);
          if (overflowX !== "hidden" || overflowY !== "hidden" || !/isolate|plaintext/.test(unicodeBidi)) found.push(`a bubble is open: ${overflowX} ${overflowY} ${unicodeBidi}`);
        }
        if (document.documentElement.scrollWidth > innerWidth) found.push("the page is wider than its window");
        return found;
      });
      expect(odd).toEqual([]);
    }
  });

  it("handles that are none are refused in words; ten thousand marks in a field do no harm", async () => {
    const [ada, stranger] = await Promise.all([stage.person("Ada"), stage.stranger()]);
    for (const handle of ["a\u0007b\u0000c", "\u202EadA", "аdа-cyrillic", `a${"\u0301".repeat(10_000)}`, "../../etc", "a b c"]) {
      await stranger.page.getByLabel("Handle").fill(handle);
      await stranger.page.getByLabel("Password").fill(PASSWORD);
      await stranger.page.getByRole("button", { name: "Sign up" }).click();
      await stranger.page.getByText("A handle has 3 to 32").waitFor();
      await ada.page.getByRole("button", { name: "New conversation" }).click();
      await ada.page.getByLabel("Their handle").fill(handle);
      await ada.page.getByRole("button", { name: "Start" }).click();
      await ada.page.getByRole("alert").filter({ hasText: /Nobody has the handle @|not have|did not work/ }).waitFor();
      expect(await ada.page.getByRole("alert").filter({ hasText: "Nobody" }).count()).toBe(1);
      const box = (await ada.page.getByRole("dialog").boundingBox())!;
      expect(box.height).toBeLessThan(420);
      await ada.page.keyboard.press("Escape");
    }
  });

  it("a megabyte that is pasted is refused with a word at once; two limits' worth stays in the field, with how much is too much", async () => {
    const [ada] = await stage.pair();
    await ada.context.grantPermissions(["clipboard-read", "clipboard-write"]);
    const paste = async (chars: number): Promise<void> => {
      await ada.page.evaluate((it) => navigator.clipboard.writeText("x".repeat(it)), chars);
      await field(ada.page).press("Control+V");
    };
    await field(ada.page).fill("kept: ");
    await ada.page.evaluate(() => {
      const tasks: number[] = [];
      Object.assign(window, { tasks });
      new PerformanceObserver((list) => tasks.push(...list.getEntries().map((it) => it.duration))).observe({ type: "longtask" });
    });
    await paste(1_000_000);
    await ada.page.getByText("That is too long to paste: 1,000,000 characters").waitFor();
    expect(await field(ada.page).inputValue()).toBe("kept: ");
    await paste(150_000);
    await ada.page.getByText("Too long by 50,006 characters").waitFor();
    expect(await ada.page.getByRole("button", { name: "Send" }).isDisabled()).toBe(true);
    await field(ada.page).press("Enter");
    expect((await field(ada.page).inputValue()).length).toBe(150_006);
    await field(ada.page).fill("short again");
    await field(ada.page).press("Enter");
    await until("it is sent", async () => (await placed(ada.page)).at(-1) === "short again");
    console.log(`long tasks while pasting: ${JSON.stringify(await ada.page.evaluate(() => (window as unknown as { tasks: number[] }).tasks))} ms`);
  });

  it("the policy lets nothing in: no inline script, no markup from text, no other host", async () => {
    const ada = await stage.stranger();
    const html = await (await fetch(stage.node.url, { headers: { Accept: "text/html" } })).text();
    expect(html).not.toMatch(/<script(?![^>]*\ssrc=)|<style|\son\w+=|\sstyle=|javascript:|https?:\/\//);
    const outcome = await ada.page.evaluate(async () => {
      const tried = async (work: () => unknown): Promise<string> => {
        try {
          await work();
          return "let in";
        } catch (error) {
          return (error as Error).name;
        }
      };
      const inline = document.createElement("script");
      document.head.append(Object.assign(document.createElement("style"), { textContent: "body { --let-in: 1 }" }));
      return {
        html: await tried(() => (document.body.innerHTML = "<img src=x onerror=alert(1)>")),
        script: await tried(() => (inline.text = "window.letIn = true")),
        // By itself: what a debugger evaluates may evaluate.
        eval: await new Promise((resolve) => setTimeout(() => void tried(() => (0, eval)("1")).then(resolve))),
        policy: await tried(() => (window as { trustedTypes?: { createPolicy(n: string, r: object): unknown } }).trustedTypes!.createPolicy("another", {})),
        worker: await tried(() => new Worker("data:text/javascript,1")),
        host: await tried(() => fetch("http://localhost:9/")),
        style: getComputedStyle(document.body).getPropertyValue("--let-in"),
        frame: await tried(() => document.body.append(Object.assign(document.createElement("iframe"), { src: "data:text/html,x" }))),
      };
    });
    expect(outcome).toMatchObject({ html: "TypeError", script: "TypeError", policy: "TypeError", worker: "TypeError", host: "TypeError", style: "" });
    expect(outcome.eval).toMatch(/EvalError|TypeError/);
    // Each of them was reported, so a breach by the page itself would be: in every other test there is none.
    for (const directive of ["require-trusted-types-for", "trusted-types", "connect-src", "style-src-elem", "frame-src"]) {
      await until(`${directive} is reported`, () => ada.complaints.some((it) => it.startsWith(`Content Security Policy: ${directive} `)));
    }
    ada.complaints.length = 0;
  });

  it("another origin may not open the socket (A10)", async () => {
    const { host, port, hostname } = new URL(stage.node.url);
    const asked = (origin: string | null): Promise<number> =>
      new Promise((resolve, reject) => {
        const headers: Record<string, string> = {
          Connection: "Upgrade", Upgrade: "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "x3JJHMbDL1EzLkh9GBhXDw==",
          "Sec-WebSocket-Protocol": "conch.1", ...(origin === null ? {} : { Origin: origin }),
        };
        const it = request(`${stage.node.url}/v1/ws`, { headers }, (response) => resolve(response.statusCode ?? 0));
        it.on("upgrade", (response, socket) => (socket.destroy(), resolve(response.statusCode ?? 0)));
        it.on("error", reject);
        it.end();
      });
    expect([await asked(null), await asked(`http://${host}`)]).toEqual([101, 101]);
    const foreign = [
      "https://evil.example", "null", "", `http://${host}.evil.example`, `http://evil.example#${host}`, `http://${hostname}:${Number(port) + 1}`,
      `https://${host}`, `http://${hostname}`, `http://${host}/`, `http://user@${host}`, `file://${host}`, `HTTP://${host}.`, `http://1${host}`,
    ];
    for (const origin of foreign) expect([origin, await asked(origin)]).toEqual([origin, 403]);
  });

  it("a page of another origin gets no socket in the browser either (A10)", async () => {
    const stranger = await stage.browser.newContext();
    const page = await stranger.newPage();
    await page.route("http://evil.test/", (route) => route.fulfill({ contentType: "text/html", body: "<title>x</title>" }));
    await page.goto("http://evil.test/");
    const code = await page.evaluate(
      (url) => new Promise<string>((resolve) => {
        const socket = new WebSocket(url, "conch.1");
        socket.onopen = () => resolve("open");
        socket.onclose = (event) => resolve(`closed ${event.code}`);
      }),
      `${stage.node.url.replace("http", "ws")}/v1/ws`,
    );
    await stranger.close();
    expect(code).toBe("closed 1006");
  });
});
