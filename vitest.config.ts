import { fileURLToPath } from "node:url";
import { playwright } from "@vitest/browser-playwright";
import { defineConfig, type TestProjectInlineConfiguration } from "vitest/config";
import type { BrowserConfigOptions } from "vitest/node";
import { probeUserfaultfd } from "./src/platform/userfaultfd/probe.ts";
import { docsPlugin } from "./test/browser/docs-plugin.ts";
import { CHROMIUM, CHROMIUM_ARGS, hasBrowser, WEBGPU_ARGS } from "./test/support/browser.ts";
import { firefox, whyNoFirefox } from "./test/support/firefox.ts";

const file = (name: string) => fileURLToPath(new URL(name, import.meta.url));

declare module "vitest" {
  interface ProvidedContext {
    /** Whether this page is cross-origin isolated. */
    readonly isolated: boolean;
    /** A server of another origin; see test/browser/range-server.ts. */
    readonly ranges: string;
  }
}

/** What a page needs to share memory between its threads. */
const ISOLATION = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};

/** Suites in a browser, on a page that may share memory or on one that may not. */
function inBrowser(
  name: string,
  isolated: boolean,
  browser: Pick<BrowserConfigOptions, "provider" | "instances">,
): TestProjectInlineConfiguration {
  return {
    resolve: {
      alias: [
        { find: /^.*\/platform\/node\/dawn\.ts$/, replacement: file("./test/browser/dawn.ts") },
        { find: "pagemirror/browser", replacement: file("./src/browser.ts") },
        { find: /^(?:\.|\.\.\/testing)\/mmu\.ts$/, replacement: file("./test/browser/mmu.ts") },
      ],
    },
    // Each random program is compiled anew, which takes a browser seconds: Node runs more of them.
    define: { "process.env": JSON.stringify({ SVM_PROGRAMS: "3", PM_RUNS: "10" }) },
    // Found only while tests run, they would make the page load anew in their middle.
    optimizeDeps: { include: ["fast-check", "wesl", "p-retry"] },
    plugins: [docsPlugin(file("."))],
    server: { headers: isolated ? ISOLATION : {} },
    test: {
      name,
      include: ["test/browser/*.browser.ts"],
      setupFiles: ["test/browser/setup.ts"],
      testTimeout: 60_000,
      provide: { isolated },
      globalSetup: ["test/browser/range-server.ts"],
      // After the others: two processors are not enough for both.
      sequence: { groupOrder: 1 },
      browser: {
        enabled: true,
        headless: true,
        screenshotFailures: false,
        ...browser,
      },
    },
  };
}

const chromium = () => ({
  provider: playwright({ launchOptions: { executablePath: CHROMIUM, args: [...CHROMIUM_ARGS, ...WEBGPU_ARGS] } }),
  instances: [{ browser: "chromium" as const }],
});
if (!hasBrowser()) {
  console.warn("the suites in Chromium are skipped: apt-get install chromium");
}

const noFirefox = whyNoFirefox();
if (noFirefox !== undefined) {
  console.warn(`the suites in Firefox are skipped: ${noFirefox}`);
}

const NODE: TestProjectInlineConfiguration["test"] = {
  setupFiles: ["src/testing/setup.ts"],
  testTimeout: 30_000,
  hookTimeout: 60_000,
  pool: "forks",
};

/** Of the core and the drivers, all but the tests that use no memory: those of compilers and of layouts. */
const ON_USERFAULTFD: TestProjectInlineConfiguration = {
  test: {
    ...NODE,
    name: "userfaultfd",
    include: ["src/{mm,mmu-notifier,hmm,migrate,drivers,testing-kit}/**/*.test.ts"],
    exclude: [
      "**/svm/{transform,compile-svm,grids,sequence,resume,resume-stores,resume-refused,infer-type}.test.ts",
      "**/{reflect,params,half}.test.ts",
    ],
    env: { PAGEMIRROR_TEST_MMU: "userfaultfd" },
  },
};

const userfaultfd = probeUserfaultfd();
if (!userfaultfd.works) {
  console.warn(`the suites on the userfaultfd MMU are skipped: ${userfaultfd.why}`);
}

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          ...NODE,
          name: "node",
          include: ["src/**/*.test.ts", "test/**/*.test.ts"],
        },
      },
      ...(userfaultfd.works ? [ON_USERFAULTFD] : []),
      ...(hasBrowser()
        ? [inBrowser("chromium", true, chromium()), inBrowser("chromium, not isolated", false, chromium())]
        : []),
      ...(noFirefox === undefined
        ? [inBrowser("firefox", true, { provider: firefox(), instances: [{ browser: "firefox" }] })]
        : []),
    ],
  },
});
