/**
 * Debian's Firefox for vitest: a page is opened by starting it, which is all that these suites ask of a browser. (Playwright
 * asks it for commands that only later versions know.)
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, realpathSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { defineBrowserProvider } from "@vitest/browser";
import type { BrowserProvider } from "vitest/node";
import { swiftShaderFiles } from "../../src/platform/node/swiftshader.ts";

const FIREFOX = "/usr/bin/firefox-esr";
/** The first one whose WebGPU these suites were run on, on Linux. */
const FIRST_VERSION = 153;

const PREFERENCES: Readonly<Record<string, boolean | number | string>> = {
  "dom.webgpu.enabled": true,
  "gfx.webgpu.ignore-blocklist": true,
  // A page of suites runs for longer than a page of the web.
  "dom.max_script_run_time": 0,
  // No questions, no first-run pages, and nothing asked of the network.
  "app.normandy.enabled": false,
  "app.update.disabledForTesting": true,
  "browser.aboutwelcome.enabled": false,
  "browser.safebrowsing.downloads.enabled": false,
  "browser.safebrowsing.malware.enabled": false,
  "browser.safebrowsing.phishing.enabled": false,
  "browser.sessionstore.resume_from_crash": false,
  "browser.shell.checkDefaultBrowser": false,
  "datareporting.policy.dataSubmissionEnabled": false,
  "extensions.systemAddon.update.enabled": false,
  "extensions.update.enabled": false,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
  "services.settings.server": "data:,",
  "termsofuse.bypassNotification": true,
  "toolkit.startup.max_resumed_crashes": -1,
};

/** Why the suites cannot run in Firefox here; undefined if they can. */
export function whyNoFirefox(): string | undefined {
  if (!existsSync(FIREFOX)) {
    return "apt-get install firefox-esr";
  }
  const about = readFileSync(join(dirname(realpathSync(FIREFOX)), "application.ini"), "utf8");
  const version = Number(/^Version=(\d+)/m.exec(about)?.[1]);
  return version >= FIRST_VERSION
    ? undefined
    : `it is version ${version}, and its WebGPU works from ${FIRST_VERSION} on`;
}

/** A provider of pages for vitest's browser mode, with WebGPU on SwiftShader. */
export function firefox() {
  return defineBrowserProvider({
    name: "firefox",
    supportedBrowser: ["firefox"],
    providerFactory: () => new FirefoxProvider(),
  });
}

class FirefoxProvider implements BrowserProvider {
  readonly name = "firefox";
  readonly supportsParallelism = false;
  #running: { readonly child: ChildProcess; readonly profile: string } | undefined;

  getCommandsContext(): Record<string, unknown> {
    return {};
  }

  async openPage(_session: string, url: string): Promise<void> {
    await this.close();
    const { folder, manifest } = await swiftShaderFiles();
    const profile = await mkdtemp(join(tmpdir(), "pagemirror-firefox-"));
    const lines = Object.entries(PREFERENCES).map(
      ([name, value]) => `user_pref("${name}", ${JSON.stringify(value)});\n`,
    );
    await writeFile(join(profile, "user.js"), lines.join(""));
    const child = spawn(FIREFOX, ["--headless", "--no-remote", "--profile", profile, url], {
      stdio: "ignore",
      // The folder has a loader too, for machines that have none.
      env: { ...process.env, VK_DRIVER_FILES: manifest, LD_LIBRARY_PATH: folder },
    });
    this.#running = { child, profile };
    process.once("exit", () => child.kill());
    await once(child, "spawn");
  }

  async close(): Promise<void> {
    const running = this.#running;
    this.#running = undefined;
    if (running === undefined) {
      return;
    }
    const { child, profile } = running;
    if (child.exitCode === null && child.signalCode === null) {
      const exited = once(child, "exit");
      child.kill();
      await exited;
    }
    await rm(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
}
