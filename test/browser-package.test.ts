/** The built package in a page that a bundler made: what its users do. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { Browser } from "playwright-core";
import { build } from "vite";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BROWSER_HINT, hasBrowser, openBrowser } from "./support/browser.ts";
import { ensureBuilt, ROOT } from "./support/built.ts";
import { type StaticServer, serveFolder } from "./support/static-server.ts";

const PROGRAM = `
import { open, openWorker } from "pagemirror/browser";

const KERNEL = \`
  @group(0) @binding(0) var<storage, read_write> data: array<u32>;
  @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) { data[id.x] = id.x * 3u; }\`;

globalThis.run = async (where, ownWorker) => {
  const options = ownWorker
    ? { worker: new Worker(new URL("./worker.js", import.meta.url), { type: "module" }) }
    : {};
  const pm = where === "page" ? await open() : await openWorker(options);
  const data = await pm.mm.mmap({ length: 4096 });
  const kernel = await pm.device.kernel(KERNEL);
  await kernel.dispatch({ bind: { data }, workgroups: 16 });
  const lease = await data.lease("r");
  const word = lease.u32[1000];
  lease.release();
  await pm.close();
  return word;
};`;

describe.skipIf(!hasBrowser())(`the package, bundled, in ${BROWSER_HINT}`, () => {
  const folder = mkdtempSync(path.join(tmpdir(), "pagemirror-bundled-"));
  let browser: Browser;
  let server: StaticServer;

  beforeAll(async () => {
    await ensureBuilt();
    writeFileSync(path.join(folder, "index.html"), '<!doctype html><script type="module" src="/main.js"></script>');
    writeFileSync(path.join(folder, "main.js"), PROGRAM);
    writeFileSync(path.join(folder, "worker.js"), 'import "pagemirror/browser/worker";');
    await build({
      configFile: false,
      root: folder,
      logLevel: "error",
      resolve: {
        alias: {
          "pagemirror/browser/worker": path.join(ROOT, "dist/browser-worker.js"),
          "pagemirror/browser": path.join(ROOT, "dist/browser.js"),
        },
      },
      worker: { format: "es" },
    });
    server = await serveFolder(path.join(folder, "dist"), { isolated: true });
    browser = await openBrowser({ webgpu: true });
  }, 180_000);
  afterAll(async () => {
    await browser?.close();
    await server?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  test.each([
    ["in the page", "page", false],
    ["in the library's worker", "worker", false],
    ["in a worker of the page's that imports the library's", "worker", true],
  ])("a kernel runs %s", async (_, where, own) => {
    const page = await browser.newPage();
    const errors: string[] = [];
    page.on("pageerror", (error) => errors.push(String(error)));
    await page.goto(server.url);
    const word = await page.evaluate(
      ([place, ownWorker]) =>
        (globalThis as unknown as { run(where: string, own: boolean): Promise<number> }).run(place, ownWorker),
      [where, own] as const,
    );
    expect(word).toBe(3000);
    expect(errors).toEqual([]);
    await page.close();
  });
});
