/** The inspector in a real browser, over events that a server sends. */
import { mkdirSync } from "node:fs";
import { request } from "node:http";
import path from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { InspectServer } from "../src/cli/inspect-server.ts";
import { EventStore } from "../src/inspect/index.ts";
import { BROWSER_HINT, hasBrowser, openBrowser } from "./support/browser.ts";
import { ensureBuilt, ROOT } from "./support/built.ts";

const PAGE = 4096;
const BASE = 0x7000_0020_0000;
const device = "gpu";

const range = (page: number, pages: number) => ({
  space: 1,
  start: BASE + page * PAGE,
  end: BASE + (page + pages) * PAGE,
});

/** Two mappings, and rounds in which pages go up, are written by kernels, come home and go up again. */
function fill(store: EventStore, from: number, count: number, pages: number): void {
  if (from === 0) {
    store.add("mm.map", { ...range(0, pages / 2), name: "table.bin", write: false }, 0, 0);
    store.add("mm.map", { ...range(pages / 2, pages / 2), name: "results", write: true }, 1, 0);
    store.add("mmu.notifier", { space: 1, name: "hmm", what: "get", users: 1 }, 2, 0);
    const counts = { bytes: PAGE, pages: 1, restarts: 0, rounds: 1 };
    store.add("gpu.dispatch", { device, kernel: "walk", mode: "bind", ...counts }, 3, 4);
  }
  let x = 12_345 + from;
  for (let i = from; i < from + count; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    // Most of it happens in the first tenth of the pages.
    const page = x % (x & 0x7000_0000 ? Math.ceil(pages / 10) : pages);
    const at = range(page, 1);
    const time = 10 + i * 10;
    switch (i % 8) {
      case 0:
        store.add("mm.fault", { ...at, write: (x & 64) !== 0, device: false }, time, 4);
        break;
      case 1:
        store.add("gpu.fault", { device, ...at, write: false, pages: 1 }, time, 0);
        break;
      case 2:
      case 3:
        store.add("gpu.upload", { device, ...at, pages: 1, bytes: PAGE }, time, 7);
        break;
      case 4:
        store.add(
          "mm.migrate",
          { ...at, pages: 1, to: x & 64 ? "device" : "host", cause: x & 64 ? "kernel write" : "cpu fault" },
          time,
          5,
        );
        break;
      case 5:
        store.add("gpu.readback", { device, ...at, pages: 1, bytes: PAGE }, time, 5);
        break;
      case 6:
        store.add("sync.wait", { lock: "mmap", mode: "read" }, time, 3);
        break;
      default:
        store.add("gpu.round", { device, kernel: "walk", workgroups: 64, completed: 8, faults: 2 }, time - 60, 68);
        store.add(
          "gpu.memory",
          { device, resident: i % pages, dirty: i % 100, free: 1000, toDevice: i * 1000, toHost: i * 400 },
          time,
          0,
        );
    }
  }
}

async function get(
  url: string,
  headers: Record<string, string> = {},
): Promise<{ status: number; headers: Record<string, unknown> }> {
  return await new Promise((resolve, reject) => {
    request(url, { headers }, (response) => {
      response.resume();
      resolve({ status: response.statusCode ?? 0, headers: response.headers });
      if (response.headers["content-type"] === "text/event-stream") {
        response.destroy();
      }
    })
      .on("error", reject)
      .end();
  });
}

describe("the inspector's server", () => {
  let server: InspectServer;
  beforeAll(async () => {
    await ensureBuilt();
    server = await InspectServer.start({ store: new EventStore(), live: false });
  }, 180_000);
  afterAll(() => server.close());

  test("answers on loopback only to who has the token, under its own name, from its own pages", async () => {
    const { url } = server;
    expect(new URL(url).hostname).toBe("127.0.0.1");
    const bare = url.replace(/\?.*/, "");
    const token = new URL(url).search;
    const own = `127.0.0.1:${server.port}`;
    const good = await get(url);
    expect(good.status).toBe(200);
    expect(good.headers["content-security-policy"]).toMatch(/default-src 'none'.*connect-src 'self'/);
    expect(good.headers["access-control-allow-origin"]).toBeUndefined();
    const statuses = await Promise.all([
      get(bare),
      get(`${bare}events`),
      get(`${bare}live?token=wrong`),
      get(`${bare}events${token}`, { host: "evil.example" }),
      get(`${bare}events${token}`, { origin: "http://evil.example" }),
      get(`${bare}assets/..%2f..%2fcli/main.js`),
      get(`${bare}assets/../../package.json`),
      get(`${bare}nothing${token}`),
      get(`${bare}events${token}`, { origin: `http://${own}` }),
    ]);
    expect(statuses.map(({ status }) => status)).toEqual([403, 403, 403, 421, 403, 404, 403, 404, 200]);
  });
});

describe.skipIf(!hasBrowser())(`the inspector in ${BROWSER_HINT}`, () => {
  let browser: Browser;
  let server: InspectServer;
  const store = new EventStore();
  const asked: string[] = [];
  const errors: string[] = [];

  async function open(width: number, height: number, colorScheme: "light" | "dark", touch = false): Promise<Page> {
    const page = await browser.newPage({ viewport: { width, height }, colorScheme, hasTouch: touch, isMobile: touch });
    page.on("request", (one) => asked.push(one.url()));
    page.on("pageerror", (error) => errors.push(String(error)));
    page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
    await page.goto(server.url);
    await page.getByTestId("count").filter({ hasText: "events" }).waitFor();
    await expect.poll(() => page.getByTestId("why").innerText()).toContain("What to do");
    return page;
  }
  const shot = async (page: Page, name: string) => {
    const folder = process.env.PAGEMIRROR_SCREENSHOTS;
    if (folder !== undefined) {
      mkdirSync(folder, { recursive: true });
      await page.screenshot({ path: path.join(folder, `${name}.png`), fullPage: true });
    }
  };

  beforeAll(async () => {
    await ensureBuilt();
    fill(store, 0, 40_000, 4096);
    server = await InspectServer.start({ store, live: true, page: path.join(ROOT, "dist/inspector") });
    browser = await openBrowser();
  }, 180_000);
  afterAll(async () => {
    const own = `127.0.0.1:${server.port}`;
    await browser.close();
    await server.close();
    expect(errors).toEqual([]);
    expect(asked.filter((url) => new URL(url).host !== own)).toEqual([]);
  });

  test("shows the mappings, what took the time, and the tables", async () => {
    const page = await open(1280, 900, "light");
    expect(await page.getByTestId("count").innerText()).toContain("4,096 pages");
    expect(await page.getByTestId("why").locator("li").count()).toBe(3);
    const tables = await page.getByTestId("tables").innerText();
    for (const words of ["table.bin", "to device: uploaded", "hmm: get", "mmap, read"]) {
      expect(tables).toContain(words);
    }
    expect(await page.getByTestId("curves").locator("canvas").count()).toBe(1);
    await shot(page, "light");
    await page.close();
  });

  test("sorts a table by the column whose head is chosen, first one way and then the other", async () => {
    const page = await open(390, 900, "light");
    const table = page.locator("section", { has: page.getByRole("heading", { name: "Hottest pages" }) });
    const column = async (n: number) =>
      (await table.locator(`tbody td:nth-child(${n})`).allInnerTexts()).map((text) => Number(text.replaceAll(",", "")));
    const byEvents = await column(2);
    const sent = (await column(3)).sort((a, b) => b - a);
    expect(sent[0]).toBeGreaterThan(sent[sent.length - 1]);
    expect(await page.locator(".keys").first().isVisible()).toBe(true);
    const titles = await table
      .getByRole("button", { name: /^(written|left)$/ })
      .evaluateAll((heads) => heads.map((head) => head.getAttribute("title")));
    expect(titles).toEqual([
      expect.stringMatching(/kernel.*Sort by written$/),
      expect.stringMatching(/back.*Sort by left$/),
    ]);
    const head = table.getByRole("button", { name: "sent" });
    await head.press("Enter");
    await expect.poll(() => column(3)).toEqual(sent);
    await head.click();
    await expect.poll(() => column(3)).toEqual([...sent].reverse());
    expect((await column(2)).sort((a, b) => b - a)).toEqual(byEvents);
    await page.close();
  });

  test("tells a page's story under the mouse, keeps it at a click, and moves by keyboard", async () => {
    const page = await open(1280, 900, "dark");
    const map = page.getByTestId("map");
    await map.hover({ position: { x: 30, y: 22 } });
    const hint = page.getByRole("tooltip");
    await hint.waitFor();
    expect(await hint.innerText()).toMatch(/^table\.bin 0x7000_0020_/);
    await map.click({ position: { x: 30, y: 22 } });
    const story = page.getByTestId("story");
    await expect.poll(() => story.innerText()).toMatch(/^table\.bin 0x7000_0020_.*\n.*(gpu\.|mm\.)/);
    const before = (await story.innerText()).split("\n")[0];
    await map.press("ArrowRight");
    await expect.poll(async () => (await story.innerText()).split("\n")[0]).not.toBe(before);
    await shot(page, "dark");
    await page.close();
  });

  test("zooms where the timeline is brushed, and the map follows the cursor in time", async () => {
    const page = await open(1280, 900, "light");
    const timeline = page.getByTestId("timeline");
    const view = page.getByTestId("view");
    const whole = await view.innerText();
    await timeline.scrollIntoViewIfNeeded();
    const box = await timeline.boundingBox();
    if (box === null) {
      expect.fail("the timeline is not there");
    }
    await page.mouse.move(box.x + 200, box.y + 40);
    await page.mouse.down();
    await page.mouse.move(box.x + 500, box.y + 40, { steps: 5 });
    await page.mouse.up();
    await expect.poll(() => view.innerText()).not.toBe(whole);
    const brushed = await view.innerText();
    await timeline.press("+");
    await expect.poll(() => view.innerText()).not.toBe(brushed);
    await page.mouse.move(box.x + 300, box.y + 40);
    await expect.poll(() => page.getByTestId("cursor").innerText()).not.toBe("");
    const late = await mapPixels(page);
    await timeline.press("0");
    await expect.poll(() => view.innerText()).toBe(whole);
    await timeline.press("Home");
    await page.mouse.move(5, 5);
    await expect.poll(() => page.getByTestId("cursor").innerText()).toBe("at 0.0 µs");
    await expect.poll(() => mapPixels(page)).not.toBe(late);
    await page.close();
  });

  test("fits a phone, without a scroll bar to the side, and speaks of keys only where there may be some", async () => {
    const page = await open(390, 844, "dark", true);
    expect(await page.locator(".keys").first().isVisible()).toBe(false);
    const { scroll, width } = await page.evaluate(() => ({
      scroll: document.documentElement.scrollWidth,
      width: document.documentElement.clientWidth,
    }));
    expect(scroll).toBeLessThanOrEqual(width);
    await shot(page, "phone");
    await page.close();
  });

  test("a tooltip is in the window as a whole, also in the lower right corner of a narrow one", async () => {
    const page = await open(390, 500, "light");
    const [window, hint] = [{ width: 390, height: 500 }, page.getByRole("tooltip")];
    for (const place of ["map", "timeline"]) {
      const canvas = page.getByTestId(place);
      await canvas.evaluate((element) => element.scrollIntoView({ block: "end" }));
      const box = await canvas.boundingBox();
      if (box === null) {
        expect.fail(`the ${place} is not there`);
      }
      await expect
        .poll(async () => {
          // An event, or a page, is somewhere near the edge.
          await page.mouse.move(box.x + box.width - 30 - Math.random() * 40, box.y + 30 + Math.random() * 60);
          return await hint.count();
        })
        .toBe(1);
      const shown = await hint.boundingBox();
      expect(shown?.x).toBeGreaterThanOrEqual(0);
      expect(shown?.y).toBeGreaterThanOrEqual(0);
      expect((shown?.x ?? 0) + (shown?.width ?? 0)).toBeLessThanOrEqual(window.width);
      expect((shown?.y ?? 0) + (shown?.height ?? 0)).toBeLessThanOrEqual(window.height);
      await page.mouse.move(1, 1);
    }
    await page.close();
  });

  test("follows a run that goes on, and says when it is over", async () => {
    const page = await open(1280, 900, "light");
    const count = page.getByTestId("count");
    const status = page.getByTestId("status");
    expect(await status.innerText()).toBe("live");
    fill(store, 40_000, 5000, 4096);
    await expect.poll(() => count.innerText(), { timeout: 5000 }).toContain(store.count.toLocaleString("en-US"));
    await expect.poll(() => page.getByTestId("cursor").innerText()).not.toBe("at 7.0 µs");
    server.finish();
    await expect.poll(() => status.innerText(), { timeout: 5000 }).toBe("recorded");
    // What is over shows where pages were when the last dispatch ended.
    await expect.poll(() => page.getByTestId("cursor").innerText()).toBe("at 7.0 µs");
    await page.close();
  });
});

describe.skipIf(!hasBrowser())(`a million events in ${BROWSER_HINT}`, () => {
  test("are shown, and the map of a million pages still answers the mouse", async () => {
    await ensureBuilt();
    const store = new EventStore(1 << 20);
    fill(store, 0, 1_000_000, 1 << 20);
    const server = await InspectServer.start({ store, live: false, page: path.join(ROOT, "dist/inspector") });
    const browser = await openBrowser();
    try {
      const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
      await page.goto(server.url);
      await expect.poll(() => page.getByTestId("count").innerText(), { timeout: 20_000 }).toContain("1,048,576 pages");
      await page.getByTestId("map").hover({ position: { x: 40, y: 40 } });
      await page.getByRole("tooltip").waitFor();
      const frames = await page.evaluate(async () => {
        const canvas = document.querySelector<HTMLCanvasElement>("[data-testid=timeline]");
        const box = canvas?.getBoundingClientRect() ?? new DOMRect();
        const took: number[] = [];
        for (let i = 0; i < 20; i++) {
          const started = performance.now();
          const at = { clientX: box.x + 100 + i * 20, clientY: box.y + 60, bubbles: true, pointerId: 1 };
          canvas?.dispatchEvent(new PointerEvent("pointermove", at));
          await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
          took.push(performance.now() - started);
        }
        return took.sort((a, b) => a - b);
      });
      if (process.env.PAGEMIRROR_SCREENSHOTS !== undefined) {
        process.stderr.write(`two frames: median ${frames[10].toFixed(1)} ms, longest ${frames[19].toFixed(1)} ms\n`);
        await page.screenshot({ path: path.join(process.env.PAGEMIRROR_SCREENSHOTS, "million.png"), fullPage: true });
      }
      expect(frames).toHaveLength(20);
    } finally {
      await browser.close();
      await server.close();
    }
  }, 60_000);
});

async function mapPixels(page: Page): Promise<string> {
  return await page.getByTestId("map").evaluate((canvas) => (canvas as HTMLCanvasElement).toDataURL());
}
