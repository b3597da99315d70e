/**
 * The layers of the project as data: a folder of src, what it may import, and which npm packages.
 *
 *     base <- { sync, collections } <- mm <- mmu-notifier <- { hmm, migrate } <- drivers/{ dmirror, webgpu }
 *     mm/ports <- platform/*           only composition roots (index, page-mirror, node, browser, cli, service) name a platform
 *     drivers <- service <- { node, browser } <- cli
 *     base <- trace <- inspect         they know events, and nothing of the core
 *     the core <- testing-kit          what drivers are tested with
 *     drivers, testing-kit <- check    what the schedule explorer runs
 *     everything <- testing            help for tests, which nothing that ships may see
 */
export interface Layer {
  /** Folder or file under src, without its extension. The longest name that fits a file is its layer. */
  readonly name: string;
  /** Layers that it may import besides itself. */
  readonly imports: readonly string[];
  /** npm packages that it may import. */
  readonly packages: readonly string[];
  /** True where Node's own modules and globals are there. */
  readonly node: boolean;
}

const core = ["base", "sync", "collections", "mm", "mmu-notifier", "hmm", "migrate"];
const drivers = ["drivers/dmirror", "drivers/webgpu"];
const platforms = [
  "platform/adapter",
  "platform/software",
  "platform/http",
  "platform/browser",
  "platform/node",
  "platform/userfaultfd",
  "platform/userfaultfd/fault-log",
];

/** The files of the service that know how a thread is made on Node. */
const serviceOnNode = ["service/index", "service/open", "service/parts", "service/session", "service/threads"];

export const LAYERS: readonly Layer[] = [
  { name: "base", imports: [], packages: [], node: false },
  { name: "sync", imports: ["base"], packages: [], node: false },
  { name: "collections", imports: ["base"], packages: [], node: false },
  { name: "mm", imports: ["base", "sync", "collections"], packages: [], node: false },
  { name: "mmu-notifier", imports: ["base", "sync", "collections", "mm"], packages: [], node: false },
  { name: "hmm", imports: ["base", "sync", "collections", "mm", "mmu-notifier"], packages: [], node: false },
  { name: "migrate", imports: ["base", "sync", "collections", "mm", "mmu-notifier"], packages: [], node: false },
  { name: "drivers/dmirror", imports: core, packages: [], node: false },
  { name: "drivers/webgpu", imports: core, packages: ["wesl"], node: false },
  { name: "trace", imports: ["base"], packages: [], node: false },
  { name: "inspect", imports: ["base", "trace"], packages: [], node: false },
  { name: "platform/software", imports: ["base", "sync", "collections", "mm"], packages: [], node: false },
  { name: "platform/http", imports: ["base", "sync", "collections", "mm"], packages: ["p-retry"], node: false },
  { name: "platform/adapter", imports: [], packages: [], node: false },
  { name: "platform/browser", imports: ["base", "mm", "platform/adapter"], packages: [], node: false },
  {
    name: "platform/node",
    imports: ["base", "sync", "collections", "mm", "trace", "platform/adapter"],
    packages: ["@opentelemetry/api", "webgpu", "koffi", "@sparticuz/chromium", "tar-stream", "env-paths"],
    node: true,
  },
  { name: "platform/userfaultfd/fault-log", imports: ["base"], packages: [], node: false },
  {
    name: "platform/userfaultfd",
    imports: ["base", "sync", "collections", "mm", "platform/node", "platform/userfaultfd/fault-log"],
    packages: ["koffi"],
    node: true,
  },
  { name: "index", imports: [...core, ...drivers, "platform/software", "platform/http"], packages: [], node: false },
  {
    name: "page-mirror",
    imports: ["mm", "drivers/webgpu", "platform/adapter", "platform/http"],
    packages: [],
    node: false,
  },
  {
    name: "browser",
    imports: ["index", "page-mirror", "browser-client", "trace", "service", "mm", "drivers/webgpu", ...platforms],
    packages: [],
    node: false,
  },
  { name: "browser-client", imports: ["base", "mm", "service", "browser-worker"], packages: [], node: false },
  {
    name: "browser-worker",
    imports: ["browser", "service", "base", "mm", "platform/http", "platform/userfaultfd/fault-log"],
    packages: [],
    node: false,
  },
  {
    name: "node",
    imports: ["index", "page-mirror", "trace", "service", "service/index", ...core, ...drivers, ...platforms],
    packages: [],
    node: true,
  },
  { name: "testing-kit", imports: [...core, "platform/software"], packages: [], node: false },
  { name: "check", imports: [...core, ...drivers, "testing-kit"], packages: [], node: false },
  // Both sides of a service, over any channel; the files after it know how a thread is made on Node.
  {
    name: "service",
    imports: [
      "base",
      "sync",
      "mm",
      "trace",
      "drivers/webgpu",
      "platform/adapter",
      "platform/http",
      "platform/userfaultfd/fault-log",
    ],
    packages: [],
    node: false,
  },
  ...[...serviceOnNode, "service/thread", "service/rescue-thread"].map((name) => ({
    name,
    imports: ["base", "mm", "drivers/webgpu", "service", ...serviceOnNode, ...platforms],
    packages: [],
    node: true,
  })),
  {
    name: "cli",
    imports: ["index", "node", "trace", "inspect", "check", ...core, ...drivers, ...platforms],
    packages: ["commander", "cli-progress"],
    node: true,
  },
  // Help for tests: sees everything, and nothing that ships may see it.
  {
    name: "testing",
    imports: ["index", "node", "cli", "trace", "inspect", "check", "testing-kit", ...core, ...drivers, ...platforms],
    packages: ["vitest", "fast-check", "wgsl_reflect"],
    node: true,
  },
];

/** Type packages, which any layer may name. */
export const TYPE_PACKAGES: readonly string[] = ["@webgpu/types"];
