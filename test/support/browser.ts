/** Debian's Chromium, driven without a download. */
import { existsSync } from "node:fs";
import { type Browser, chromium } from "playwright-core";

const CHROMIUM = "/usr/bin/chromium";

/** Whether {@link openBrowser} can work here. */
export const hasBrowser = (): boolean => existsSync(CHROMIUM);

/** For the names of tests that are skipped without one. */
export const BROWSER_HINT = hasBrowser() ? "Chromium" : "Chromium (skipped: apt-get install chromium)";

/** A headless browser that asks nothing of the network. */
export function openBrowser(): Promise<Browser> {
  return chromium.launch({
    executablePath: CHROMIUM,
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}
