/** What the benchmarks share. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** @param {number[]} values */
export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * Runs every subject once a round, so that a slow moment of the machine meets all of them; returns each one's median.
 * A subject returns its own figure.
 * @template {string} K
 * @param {number} rounds
 * @param {Record<K, () => number | Promise<number>>} subjects
 * @returns {Promise<Record<K, number>>}
 */
export async function interleaved(rounds, subjects) {
  const figures = Object.fromEntries(Object.keys(subjects).map((name) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    for (const [name, subject] of Object.entries(subjects)) {
      figures[name].push(await subject());
    }
  }
  return Object.fromEntries(Object.entries(figures).map(([name, values]) => [name, median(values)]));
}

/** Milliseconds that `body` takes. @param {() => unknown} body */
export async function milliseconds(body) {
  const start = performance.now();
  await body();
  return performance.now() - start;
}

/** Bytes that JavaScript objects and array buffers hold, after a collection. */
export function liveBytes() {
  for (let i = 0; i < 3; i++) {
    collect();
  }
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

/** The collector, also where the process was started without `--expose-gc`. */
export function collect() {
  if (globalThis.gc === undefined) {
    setFlagsFromString("--expose-gc");
    globalThis.gc = runInNewContext("gc");
  }
  globalThis.gc();
}
