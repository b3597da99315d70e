/** The conformance suite for drivers: what the project's own drivers are held to. */
import { SoftwareMmu } from "../platform/software/cpu-mmu.ts";
import type { ConformanceOptions } from "./driver.ts";
import { withoutLeaks } from "./leaks.ts";
import { TestMachine } from "./machine.ts";
import { CHANGE_TESTS } from "./suite-changes.ts";
import { LIFETIME_TESTS } from "./suite-lifetimes.ts";
import { MEMORY_TESTS } from "./suite-memory.ts";

/** Every test of the suite, by name. */
export const CONFORMANCE_TESTS: readonly string[] = Object.keys({
  ...MEMORY_TESTS,
  ...CHANGE_TESTS,
  ...LIFETIME_TESTS,
});

/**
 * Declares the suite's tests with the runner's `test`. Each has a machine and a driver of its own; at its end all address
 * spaces are in order, and when they and the driver are gone nothing is left in the leak ledger.
 */
export function conformance(options: ConformanceOptions): void {
  const { test, name = "driver", mmus = { software: () => new SoftwareMmu() }, except = {} } = options;
  for (const [mmu, create] of Object.entries(mmus)) {
    for (const [title, body] of Object.entries({ ...MEMORY_TESTS, ...CHANGE_TESTS, ...LIFETIME_TESTS })) {
      if (except[title] === undefined) {
        test(`${name} on ${mmu}: ${title}`, () =>
          withoutLeaks(async () => {
            const machine = new TestMachine(create(), await options.openDriver());
            try {
              await body(machine);
              machine.validate();
            } finally {
              await machine.end();
            }
          }));
      }
    }
  }
}
