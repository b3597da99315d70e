/** The example site in a real browser: a file goes in, and the result is what the CPU finds. */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { buildSite } from "../scripts/browser-example.mjs";
import { BROWSER_HINT, hasBrowser, openBrowser } from "./support/browser.ts";
import { type StaticServer, serveFolder } from "./support/static-server.ts";

const MIB = 2 ** 20;
/** One more than what a WebGPU device binds at once when nobody asked for more. */
const LARGE_MIB = 129;

describe.skipIf(!hasBrowser())(`the example site in ${BROWSER_HINT}`, () => {
  const folder = mkdtempSync(path.join(tmpdir(), "pagemirror-site-"));
  const large = path.join(folder, "large.bin");
  const asked: string[] = [];
  const errors: string[] = [];
  let browser: Browser;
  let server: StaticServer;

  beforeAll(async () => {
    await buildSite(path.join(folder, "site"));
    const chunk = Buffer.alloc(MIB, "abcdefgz");
    const file = await open(large, "w");
    for (let i = 0; i < LARGE_MIB; i++) {
      chunk.fill(i, 0, 1000);
      await file.write(chunk);
    }
    await file.write("!!!");
    await file.close();
    server = await serveFolder(path.join(folder, "site"));
    browser = await openBrowser({ webgpu: true });
  }, 120_000);
  afterAll(async () => {
    await browser?.close();
    await server?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
    expect(errors).toEqual([]);
    expect(asked.filter((url) => !url.startsWith(server.url) && !url.startsWith("data:"))).toEqual([]);
  });

  async function visit(width: number, colorScheme: "light" | "dark", from = browser): Promise<Page> {
    const page = await from.newPage({ viewport: { width, height: 900 }, colorScheme });
    page.on("request", (one) => asked.push(one.url()));
    page.on("pageerror", (error) => errors.push(String(error)));
    await page.goto(server.url);
    return page;
  }
  const outcome = async (page: Page) => {
    await page.getByTestId("check").or(page.getByRole("alert")).waitFor({ timeout: 90_000 });
    return page.getByTestId("results").innerText();
  };
  const shot = async (page: Page, name: string) => {
    const shots = process.env.PAGEMIRROR_SCREENSHOTS;
    if (shots !== undefined) {
      mkdirSync(shots, { recursive: true });
      await page.screenshot({ path: path.join(shots, `site-${name}.png`), fullPage: true });
    }
  };

  test("a kernel runs over a file that is larger than a binding may be, and the inspector shows it live", async () => {
    const page = await visit(1360, "light");
    const choosing = page.waitForEvent("filechooser");
    await page.getByRole("button", { name: "Choose a file" }).click();
    await (await choosing).setFiles(large);
    await page.getByRole("button", { name: "Run the kernel" }).click();
    await expect.poll(() => page.getByTestId("status").innerText(), { timeout: 30_000 }).toBe("live");
    await expect.poll(() => page.getByTestId("count").innerText(), { timeout: 30_000 }).toMatch(/33,\d{3} pages/);
    await shot(page, "live");
    const text = await outcome(page);
    expect(text).toContain("The CPU comes to the same result");
    expect(text).toContain("bound at once at most\n128.0 MiB");
    expect(Number(/brought to the GPU\n([\d.]+) MiB/.exec(text)?.[1])).toBeGreaterThanOrEqual(LARGE_MIB);
    // What this test wrote: "z" in one of eight places, but for the first 1000 bytes of each MiB, which are 122 once.
    const z = (LARGE_MIB * (MIB - 1000)) / 8 + 1000;
    const titles = await page.getByTestId("results").locator("rect title").allTextContents();
    expect(titles.slice(122, 123)).toEqual([`z: ${z.toLocaleString("en-US")}`]);
    expect(titles.slice(33, 34)).toEqual(["!: 1,003"]);
    await expect.poll(() => page.getByTestId("status").innerText()).toBe("recorded");
    await expect.poll(() => page.getByTestId("why").innerText()).toContain("What to do");
    await shot(page, "light");
    await page.close();
  }, 120_000);

  test("a file that is dropped is searched, by keyboard, on a phone's width", async () => {
    const page = await visit(390, "dark");
    await page.evaluate(() => {
      const text = `${"a needle in hay; ".repeat(100_000)}and a nee`;
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([text], "hay.txt"));
      document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
    });
    await expect.poll(() => page.getByTestId("drop").innerText()).toContain("hay.txt");
    await page.getByRole("radio", { name: "Count bytes" }).focus();
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("Tab");
    await page.keyboard.press("ControlOrMeta+A");
    await page.keyboard.type("needle");
    await page.keyboard.press("Enter");
    expect(await outcome(page)).toContain("“needle” 100,000 times\n\n✓ The CPU comes to the same result.");
    const { scroll, width } = await page.evaluate(() => ({
      scroll: document.documentElement.scrollWidth,
      width: document.documentElement.clientWidth,
    }));
    expect(scroll).toBeLessThanOrEqual(width);
    await page.getByRole("button", { name: "Switch between light and dark" }).click();
    expect(await page.evaluate(() => document.documentElement.dataset.theme)).toBe("light");
    await shot(page, "phone");
    await page.close();
  }, 60_000);

  test("a run that is stopped says so, and another one begins anew", async () => {
    const page = await visit(1000, "light");
    await page.locator("input[type=file]").setInputFiles(large);
    await page.getByRole("button", { name: "Run the kernel" }).click();
    await expect.poll(() => page.getByTestId("results").innerText(), { timeout: 30_000 }).toContain("The GPU works");
    await page.getByRole("button", { name: "Stop" }).click();
    expect(await outcome(page)).toContain("Stopped.");
    const small = { name: "small.txt", mimeType: "text/plain", buffer: Buffer.from("abracadabra") };
    await page.locator("input[type=file]").setInputFiles(small);
    await page.getByRole("button", { name: "Run the kernel" }).click();
    expect(await outcome(page)).toContain("5 different bytes");
    await page.close();
  }, 60_000);

  test("without a GPU the page says what to do", async () => {
    const bare = await openBrowser();
    try {
      const page = await visit(800, "light", bare);
      await page.locator("input[type=file]").setInputFiles({ name: "a", mimeType: "", buffer: Buffer.from("a") });
      await page.getByRole("button", { name: "Run the kernel" }).click();
      expect(await outcome(page)).toMatch(/open: ENODEV: .*(update the GPU's driver|use a current Chrome)/);
    } finally {
      await bare.close();
    }
  }, 60_000);
});
