/** The explorer is not blind: with any of these lines of the production code broken, it finds a schedule that fails. */
import { expect, test } from "vitest";
import { EXPLORED_ENTRY } from "../scripts/explored.mjs";
import { Explorer } from "../src/check/index.ts";
import { breakLine, loadBundle } from "./support/explored.ts";

interface Mutant {
  readonly what: string;
  readonly from: string;
  readonly to: string;
  readonly scenario: string;
  readonly breaks: string;
}

const MUTANTS: readonly Mutant[] = [
  {
    what: "range.valid is a flag",
    from: "this.#blocked === 0 && this.#seen === this.#generation",
    to: "this.#blocked === 0",
    scenario: "range-fault+migrate",
    breaks: "I-HMM-1",
  },
  {
    what: "the last put frees without a grace period",
    from: "notifierSrcu.call(() => {",
    to: "((free) => free())(() => {",
    scenario: "munmap+put",
    breaks: "I-MN-3",
  },
  {
    what: "synchronize does not wait",
    from: "yield notifierSrcu.barrier();",
    to: "yield undefined;",
    scenario: "put+synchronize",
    breaks: "I-MN-3",
  },
  {
    what: "nobody is woken when a range is unblocked",
    from: "this.wq.wakeAll();",
    to: ";",
    scenario: "range-fault+mprotect",
    breaks: "I-CHK-1",
  },
  {
    what: "the device is programmed without a look at range.valid",
    from: "if (!range.valid) {",
    to: "if (false) {",
    scenario: "range-fault+migrate",
    breaks: "I-HMM-1",
  },
  {
    what: "a grace period does not wait for readers",
    from: "if (this.#readers[old] === 0) {",
    to: "if (true) {",
    scenario: "munmap+put",
    breaks: "I-MN-3",
  },
  {
    what: "the sync callback lets the device keep its entries",
    from: "forEachPart(update, (start, end) => this.table.drop(start, end));",
    to: ";",
    scenario: "unload+munmap",
    breaks: "I-HMM-1",
  },
  {
    what: "a device gets a page for itself without a look at invalidations under way",
    from: "this.isInvalidating(at, at + PAGE_SIZE)",
    to: "false",
    scenario: "dontneed+exclusive",
    breaks: "I-HMM-1",
  },
  {
    what: "a page that a device has for itself is taken back without its lock",
    from: "object.updateFlags(first, last, PageFlag.Busy, 0);\n    return announceOnObject",
    to: "return announceOnObject",
    scenario: "exclusive+exclusive-touch",
    breaks: "I-HMM-1",
  },
  {
    what: "an invalidation of scattered runs blocks no range",
    from: "if (changesIn(update, range.start, range.end)) {",
    to: "if (update.parts === undefined) {",
    scenario: "range-fault+clear-runs",
    breaks: "I-HMM-1",
  },
  {
    what: "a device drops the first of an invalidation's runs only",
    from: "for (let i = 0; i < parts.length; i += 2) {\n      visit(parts[i]",
    to: "for (let i = 0; i < 2; i += 2) {\n      visit(parts[i]",
    scenario: "unload+clear-runs",
    breaks: "I-HMM-1",
  },
  {
    what: "webgpu: a device keeps its copies of all runs but the first",
    from: "i < parts.length && parts[i] < this.end",
    to: "i < 2 && parts[i] < this.end",
    scenario: "dispatch-read+clear-runs",
    breaks: "I-CHK-5",
  },
  {
    what: "webgpu: a dispatch is submitted without a look at its ranges",
    from: "=> !range.valid)",
    to: "=> false)",
    scenario: "dispatch-read+other-gpu",
    breaks: "I-CHK-5",
  },
  {
    what: "webgpu: an invalidation lets the device keep its copies",
    from: "extent.drop(update);\n      extent.epoch++",
    to: "extent.epoch++",
    scenario: "dispatch-read+cpu-add",
    breaks: "I-CHK-5",
  },
  {
    what: "webgpu: pages that the CPU may write are taken for copies",
    from: "areWritable(object, runs, toPage)",
    to: "false",
    scenario: "dispatch-read+cpu-add",
    breaks: "I-CHK-5",
  },
  {
    what: "webgpu: a mirror ends under a dispatch that waits with a range of it",
    from: "yield this.waits.end();",
    to: ";",
    scenario: "dispatch-read+gpu-unload+dontneed",
    breaks: "I-HMM-[58]",
  },
  {
    what: "webgpu: an operation that the GPU cut off is tried again until the loss is announced",
    from: "this.mark(NO_ANSWER);",
    to: ";",
    scenario: "gpu-lost+gpu-unload",
    breaks: "I-CHK-2",
  },
  {
    what: "webgpu: devices are closed side by side in one task",
    from: "const close = (device) => lockdepTask(",
    to: "const close = (device) => ((_, body) => body())(",
    scenario: "other-gpu+gpu-unload",
    breaks: "I-SYNC-4",
  },
  {
    what: "webgpu: whoever waits for the end of a mirror does not see that it is over",
    from: "}).then(() => {\n        this.#teardowns.delete(ended);\n      });",
    to: "}); ended.then(() => { this.#teardowns.delete(ended); });",
    scenario: "gpu-unload+exit",
    breaks: "I-CHK-2",
  },
];

test.each(MUTANTS)(
  "$what: found",
  async ({ from, to, scenario, breaks }) => {
    const { instantiate } = await loadBundle(EXPLORED_ENTRY, {
      change: (code) => breakLine(code, from, to),
    });
    const explorer = new Explorer(instantiate);
    const name = explorer.names.find((each) => each.split("+").sort().join() === scenario.split("+").sort().join());
    const { failure } = explorer.random(name ?? scenario, 10_000, 1);
    expect(failure?.violation.invariant).toMatch(new RegExp(`^${breaks}`));
  },
  60_000,
);
