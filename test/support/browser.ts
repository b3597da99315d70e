/** Debian's Chromium, driven without a download. */
import { existsSync } from "node:fs";
import { type Browser, chromium } from "playwright-core";

export const CHROMIUM = "/usr/bin/chromium";

/** Options of a browser that asks nothing of the network. */
export const CHROMIUM_ARGS: readonly string[] = [
  "--headless",
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** WebGPU on the driver for the CPU that Chromium brings along. */
export const WEBGPU_ARGS: readonly string[] = [
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
  "--enable-features=Vulkan",
];

/** Whether {@link openBrowser} can work here. */
export const hasBrowser = (): boolean => existsSync(CHROMIUM);

/** For the names of tests that are skipped without one. */
export const BROWSER_HINT = hasBrowser() ? "Chromium" : "Chromium (skipped: apt-get install chromium)";

/** A headless browser, with `webgpu` one that runs kernels. */
export function openBrowser({ webgpu = false } = {}): Promise<Browser> {
  return chromium.launch({
    executablePath: CHROMIUM,
    args: [...CHROMIUM_ARGS, ...(webgpu ? WEBGPU_ARGS : ["--disable-gpu"])],
  });
}
