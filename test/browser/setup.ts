/**
 * Runs before each test file in Chromium, as src/testing/setup.ts does in Node: a WARN fails the test that caused it, and
 * nothing may be left in the leak ledger. Without lockdep: a browser does not tell which task goes on after an `await`.
 */
import "../../src/testing/after-each.ts";

// What the tests give way with: after the tasks that are waiting, as in Node.
const channel = new MessageChannel();
const waiting: (() => void)[] = [];
channel.port1.onmessage = () => waiting.shift()?.();
Object.assign(globalThis, {
  setImmediate: (task: () => void) => {
    waiting.push(task);
    channel.port2.postMessage(0);
  },
});
