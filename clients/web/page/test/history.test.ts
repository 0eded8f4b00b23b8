/** Long conversations: where they open, reading back, and coming back to the newest. */

import type { Page } from "playwright-core";
import { describe, expect, it } from "vitest";
import { until } from "./node.js";
import { type Person, bubbles, field, placed } from "./people.js";
import { Stage, counted } from "./stage.js";

const stage = Stage.forTests();

/** A row that is drawn is one message, or a day, or a line: never many more than the window. */
const ROWS_MAX = 280;
const ELEMENTS_MAX = 2_000;

interface Trip {
  steps: number;
  /** Of the texts that were drawn, by their seq. */
  texts: [number, string][];
  /** Rows that moved by themselves: how far, and where that was. */
  jumps: string[];
  rowsMax: number;
  elementsMax: number;
  longTasksMs: number[];
  framesMs: number[];
}

/** Scrolls in steps until the end of that direction, looking whether what is in view stays where it is. */
function travel(page: Page, direction: "up" | "down", until: string): Promise<Trip> {
  return page.evaluate(
    async ({ step, until }) => {
      const box = document.querySelector<HTMLElement>("[role=log]")!;
      const frame = (): Promise<number> => new Promise(requestAnimationFrame);
      const texts = new Map<number, string>();
      const trip = { steps: 0, jumps: [] as string[], rowsMax: 0, elementsMax: 0, longTasksMs: [] as number[], framesMs: [] as number[] };
      const tasks = new PerformanceObserver((list) => trip.longTasksMs.push(...list.getEntries().map((it) => it.duration)));
      tasks.observe({ type: "longtask" });
      const isOver = (): boolean => {
        const isAtEdge = step < 0 ? box.scrollTop <= 0 : box.scrollHeight - box.scrollTop - box.clientHeight < 2;
        return isAtEdge && (box.textContent ?? "").includes(until);
      };
      const end = performance.now() + 240_000;
      let looked = "";
      let before = await frame();
      while (!isOver() && performance.now() < end) {
        box.scrollTop += step;
        trip.steps += 1;
        const rows = [...box.querySelectorAll<HTMLElement>(".row")];
        // Looked at when something was drawn, so that looking does not count as the page's work with every step.
        const window = `${rows[1]?.dataset["key"]} ${rows.at(-1)?.dataset["key"]}`;
        if (window !== looked) {
          looked = window;
          trip.rowsMax = Math.max(trip.rowsMax, rows.length);
          trip.elementsMax = Math.max(trip.elementsMax, document.querySelectorAll("*").length);
          for (const row of rows) {
            const seq = Number(row.dataset["seq"]);
            if (row.classList.contains("row-bubble") && !texts.has(seq)) texts.set(seq, row.querySelector(".bubble")!.textContent ?? "");
          }
        }
        const top = box.getBoundingClientRect().top + 40;
        const inView = rows.find((row) => row.dataset["seq"] !== undefined && row.getBoundingClientRect().top > top);
        const place = inView?.getBoundingClientRect().top ?? 0;
        const scrolled = box.scrollTop;
        for (let frames = 0; frames < 2; frames++) {
          const at = await frame();
          trip.framesMs.push(at - before);
          before = at;
        }
        const shift = inView?.isConnected ? Math.abs(inView.getBoundingClientRect().top - place) : inView ? Infinity : 0;
        // Who is a few pixels from the newest message sticks to it.
        const isStuck = step > 0 && shift <= 48 && box.scrollHeight - box.scrollTop - box.clientHeight < 2;
        if (shift > 2 && !isStuck) trip.jumps.push(`${shift} px, row ${inView?.dataset["key"]}, step ${trip.steps}, scrolled ${scrolled}, then ${box.scrollTop} of ${box.scrollHeight}`);
      }
      tasks.disconnect();
      return { ...trip, texts: [...texts] };
    },
    { step: direction === "up" ? -1_000 : 1_000, until },
  );
}

const said = ({ steps, rowsMax, elementsMax, longTasksMs, framesMs }: Trip): string => {
  const frames = framesMs.toSorted((a, b) => a - b);
  const at = (share: number): string => (frames[Math.floor(frames.length * share)] ?? 0).toFixed(1);
  return `${steps} steps; rows ≤ ${rowsMax}, elements ≤ ${elementsMax}; frames p50 ${at(0.5)} p99 ${at(0.99)} max ${at(0.9999)} ms; long tasks: ${longTasksMs.length}, worst ${Math.max(0, ...longTasksMs)} ms`;
};

/** The text of the first row below the line above new messages, and how far the line is from the top of the list. */
const line = (page: Page): Promise<{ next: string; fromTop: number } | null> =>
  page.evaluate(() => {
    const row = document.querySelector<HTMLElement>(".row-unread");
    const box = document.querySelector("[role=log]")!;
    if (!row) return null;
    const next = row.nextElementSibling?.querySelector(".bubble")?.textContent ?? "";
    return { next, fromTop: row.getBoundingClientRect().top - box.getBoundingClientRect().top };
  });

const scrollBy = (page: Page, pixels: number): Promise<void> =>
  page.evaluate(async (by) => {
    document.querySelector("[role=log]")!.scrollTop += by;
    await new Promise(requestAnimationFrame);
    await new Promise(requestAnimationFrame);
  }, pixels);

const isAtEnd = (page: Page): Promise<boolean> =>
  page.evaluate(() => {
    const box = document.querySelector("[role=log]")!;
    return box.scrollHeight - box.scrollTop - box.clientHeight < 2;
  });

const badge = (person: Person): Promise<string> =>
  person.page.locator(".badge").textContent({ timeout: 200 }).then((it) => it ?? "", () => "");

describe("long conversations", () => {
  it("ten thousand messages: read back to the first and down again, nothing jumps, a bounded number of rows", { timeout: 600_000 }, async () => {
    const author = await stage.author("Ada");
    const grace = await stage.person("Grace");
    const channel = await author.direct(grace.handle);
    const lines = counted("line", 10_000);
    await author.write(channel, lines);

    // A device that holds the newest hundred only, of ten thousand that are new to it: it opens at their end.
    const phone = await stage.device(grace.handle, { viewport: { width: 390, height: 844 } });
    await phone.open(/Ada/);
    await until("the newest is there", async () => (await placed(phone.page)).at(-1) === "line 10000");
    await until("and is where it opened", () => isAtEnd(phone.page));

    const up = await travel(phone.page, "up", "This is the beginning.");
    console.log(`up:   ${said(up)}`);
    const down = await travel(phone.page, "down", "line 10000");
    console.log(`down: ${said(down)}`);
    for (const trip of [up, down]) {
      expect(trip.jumps).toEqual([]);
      expect(trip.rowsMax).toBeLessThanOrEqual(ROWS_MAX);
      expect(trip.elementsMax).toBeLessThanOrEqual(ELEMENTS_MAX);
      const inOrder = trip.texts.toSorted(([a], [b]) => a - b).map(([, text]) => text);
      expect(inOrder).toHaveLength(lines.length);
      expect(inOrder).toEqual(lines);
    }
    await until("all of it is read", async () => (await badge(phone)) === "");
  });

  it("opens at the line above new messages, counts down as they are read, and jumps to the newest", async () => {
    const author = await stage.author("Ada");
    const grace = await stage.person("Grace", "Grace", { viewport: { width: 1000, height: 700 } });
    const channel = await author.direct(grace.handle);
    await author.write(channel, counted("old", 30));
    await grace.open(/Ada/);
    await until("thirty are more than a screen: it opened at the first", async () => (await line(grace.page))?.next === "old 1");
    await grace.page.locator(".jump").click();
    await until("the old ones are read", async () => (await badge(grace)) === "" && (await placed(grace.page)).at(-1) === "old 30");
    await grace.close();
    await author.write(channel, counted("new", 300));
    await until("all are counted", async () => (await badge(grace)) === "300 unread");

    await grace.open(/Ada/);
    await until("the line is there", async () => (await line(grace.page)) !== null);
    const { next, fromTop } = (await line(grace.page))!;
    expect(next).toBe("new 1");
    expect(fromTop).toBeGreaterThan(0);
    expect(fromTop).toBeLessThan(200);
    const jump = grace.page.locator(".jump");
    const left = async (): Promise<number> => Number(/\d+/.exec((await jump.textContent({ timeout: 200 }).catch(() => "")) ?? "")?.[0] ?? 0);
    await until("what is on the screen is read", async () => (await left()) > 250 && (await left()) < 300);
    const before = await left();
    await scrollBy(grace.page, 1_500);
    await until("scrolling reads on", async () => (await left()) < before - 10);
    await jump.click();
    await until("the newest", async () => (await placed(grace.page)).at(-1) === "new 300" && (await isAtEnd(grace.page)));
    await until("all is read", async () => (await badge(grace)) === "" && (await jump.count()) === 0);
    // Nobody read what the jump went over twice: the mark is the same on another device.
    const phone = await stage.device(grace.handle);
    await until("read there too", async () => (await phone.page.locator(".entry").count()) === 1 && (await badge(phone)) === "");
  });

  it("on a device that holds only the newest, older new messages are fetched to open at their first", async () => {
    const author = await stage.author("Ada");
    const grace = await stage.person("Grace");
    const channel = await author.direct(grace.handle);
    await author.write(channel, counted("old", 5));
    await grace.open(/Ada/);
    await until("read", async () => (await badge(grace)) === "" && (await placed(grace.page)).length === 5);
    await grace.close();
    await author.write(channel, counted("new", 450));
    const phone = await stage.device(grace.handle);
    await until("all are counted", async () => (await badge(phone)) === "450 unread");
    await phone.open(/Ada/);
    await until("the line is there", async () => (await line(phone.page))?.next === "new 1");
  });

  it("who is at the newest stays there, however many come and however they are drawn", async () => {
    const author = await stage.author("Ada");
    const grace = await stage.person("Grace");
    const channel = await author.direct(grace.handle);
    await author.write(channel, ["hello"]);
    await grace.open(/Ada/);
    await until("it is there", async () => (await placed(grace.page)).length === 1);
    for (let i = 0; i < 50; i++) await author.write(channel, [`new ${8 * i + 1}`, ...Array.from({ length: 7 }, (_, n) => `new ${8 * i + n + 2}\nand more`)]);
    await until("the last is there", async () => (await placed(grace.page)).at(-1) === "new 400\nand more");
    expect(await isAtEnd(grace.page)).toBe(true);
    expect(await grace.page.locator(".jump").count()).toBe(0);
    expect(await grace.page.locator(".row").count()).toBeLessThanOrEqual(ROWS_MAX);
    await until("all of it is read", async () => (await badge(grace)) === "");
  });

  it("who scrolls away from the newest in the moment in which something is drawn is not pulled back", async () => {
    const author = await stage.author("Ada");
    const grace = await stage.person("Grace");
    const channel = await author.direct(grace.handle);
    await author.write(channel, counted("old", 60));
    await grace.open(/Ada/);
    await grace.page.locator(".jump").click();
    await until("all is read", async () => (await badge(grace)) === "" && (await placed(grace.page)).at(-1) === "old 60" && (await isAtEnd(grace.page)));
    // The next drawing comes behind a scroll of which no event has told yet.
    await grace.page.evaluate(() => {
      const real = window.requestAnimationFrame.bind(window);
      const box = document.querySelector("[role=log]")!;
      window.requestAnimationFrame = (draw) => {
        window.requestAnimationFrame = real;
        return real((now) => {
          const edge = box.getBoundingClientRect().top + 40;
          const row = [...box.querySelectorAll(".row-bubble")].find((it) => it.getBoundingClientRect().top > edge)!;
          Object.assign(window, { row, before: row.getBoundingClientRect().top });
          box.scrollTop -= 600;
          draw(now);
        });
      };
    });
    await author.write(channel, ["new"]);
    await until("it is counted", async () => (await grace.page.locator(".jump").textContent({ timeout: 200 }).catch(() => "")) === "1 new");
    const moved = await grace.page.evaluate(() => {
      const { row, before } = window as unknown as { row: Element; before: number };
      return Math.round(row.getBoundingClientRect().top - before);
    });
    expect(moved).toBe(600);
  });

  it("who looks at older messages keeps them before their eyes while many new ones come; own words lead to the end", async () => {
    const author = await stage.author("Ada");
    const grace = await stage.person("Grace");
    const channel = await author.direct(grace.handle);
    await author.write(channel, counted("old", 230));
    await grace.open(/Ada/);
    await grace.page.locator(".jump").click();
    await until("at the end", async () => (await placed(grace.page)).at(-1) === "old 230" && (await isAtEnd(grace.page)));
    // Who goes on before the end was read has more that is new.
    await until("all is read", async () => (await badge(grace)) === "");
    await scrollBy(grace.page, -2_000);
    const inView = (): Promise<[string, number]> =>
      grace.page.evaluate(() => {
        const top = document.querySelector("[role=log]")!.getBoundingClientRect().top;
        const row = [...document.querySelectorAll<HTMLElement>(".row-bubble")].find((it) => it.getBoundingClientRect().top > top + 40)!;
        return [row.querySelector(".bubble")!.textContent!, Math.round(row.getBoundingClientRect().top)] as [string, number];
      });
    const before = await inView();
    await author.write(channel, counted("new", 400));
    await until("they are counted", async () => (await grace.page.locator(".jump").textContent()) === "400 new");
    expect(await inView()).toEqual(before);
    expect(await grace.page.locator(".row").count()).toBeLessThanOrEqual(ROWS_MAX);
    await grace.say("my word");
    await until("at the end with it", async () => (await placed(grace.page)).at(-1) === "my word" && (await isAtEnd(grace.page)));
    expect((await placed(grace.page)).slice(-3)).toEqual(["new 399", "new 400", "my word"]);
  });

  it("what came while nobody looked stands below a line", async () => {
    const [ada, grace] = await stage.pair();
    await grace.say("seen");
    await until("it is there", async () => (await placed(ada.page)).length === 2);
    const look = (state: string): Promise<void> =>
      ada.page.evaluate((it) => {
        Object.defineProperty(document, "visibilityState", { value: it, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
      }, state);
    await look("hidden");
    await grace.say("not seen");
    await grace.say("nor this");
    await until("they are there, below a line", async () => (await line(ada.page))?.next === "not seen");
    expect(await badge(ada)).not.toBe("");
    await look("visible");
    await until("now they are read", async () => (await badge(ada)) === "");
    expect((await line(ada.page))?.next).toBe("not seen");
  });

  it("what is typed stays with its conversation, over switching and over a reload, until it is sent", async () => {
    const [ada, grace] = await stage.pair();
    const linus = await stage.person("Linus");
    await ada.writeTo(linus.handle);
    await field(ada.page).fill("for Linus only");
    await ada.open(/Grace/);
    expect(await field(ada.page).inputValue()).toBe("");
    await field(ada.page).fill("half a thought");
    await ada.page.locator(".entry", { hasText: "Draft: for Linus only" }).waitFor();
    await ada.page.reload();
    await field(ada.page).waitFor();
    expect(await field(ada.page).inputValue()).toBe("half a thought");
    await field(ada.page).press("Enter");
    await until("it is sent", async () => (await placed(grace.page)).includes("half a thought"));
    await ada.page.reload();
    await field(ada.page).waitFor();
    expect(await field(ada.page).inputValue()).toBe("");
    await ada.open(/Linus/);
    expect(await field(ada.page).inputValue()).toBe("for Linus only");
    expect(await bubbles(linus.page)).toEqual([]);
    await ada.menu("Log out");
    await ada.page.getByRole("button", { name: "Sign up" }).waitFor();
    expect(await ada.page.evaluate(() => JSON.stringify(localStorage))).not.toContain("for Linus");
  });
});
