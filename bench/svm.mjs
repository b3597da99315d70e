/** Kernels that follow addresses, against hand-written WebGPU over the same data on the same device. */
import { gather } from "./svm-gather.mjs";
import { withOpen } from "./svm-parts.mjs";
import { resident } from "./svm-resident.mjs";
import { oversubscribed, SMALL_MEMORY } from "./svm-stream.mjs";
import { chase, straggler } from "./svm-walk.mjs";
import { written } from "./svm-written.mjs";

/** Each opens devices of its own. */
export const parts = {
  async resident() {
    const loads = await withOpen({}, resident);
    return [
      { name: "svm.span.vs_raw", value: loads.span / loads.raw, unit: "x", better: "lower" },
      { name: "svm.vec4.vs_raw_scalar", value: loads.vec4 / loads.raw, unit: "x", better: "lower" },
      { name: "svm.scalar.vs_raw", value: loads.scalar / loads.raw, unit: "x", better: "lower" },
      {
        name: "svm.scalar_writable.vs_raw",
        value: loads.writable.scalar / loads.writable.raw,
        unit: "x",
        better: "lower",
      },
      { name: "svm.span.vs_raw_known_length", value: loads.span / loads.rawKnown, unit: "x", better: "lower" },
      { name: "svm.vec4.vs_raw_known_length", value: loads.vec4 / loads.rawKnown, unit: "x", better: "lower" },
      { name: "svm.scalar.vs_raw_known_length", value: loads.scalar / loads.rawKnown, unit: "x", better: "lower" },
      { name: "svm.resident.rounds", value: loads.rounds, unit: "rounds", better: "lower" },
    ];
  },

  async gather() {
    const { older, younger, svm, other, bytesOverNeeded, bytesElsewhere } = await withOpen({}, gather);
    return [
      { name: "svm.gather_1pct.bytes_over_needed", value: bytesOverNeeded, unit: "x", better: "lower" },
      { name: "svm.gather_1pct.vs_full_upload", value: Math.max(older, younger) / svm, unit: "x", better: "higher" },
      {
        name: "svm.gather_1pct.vs_fast_full_upload",
        value: Math.min(older, younger) / svm,
        unit: "x",
        better: "higher",
      },
      { name: "svm.gather_1pct.ms", value: svm, unit: "ms", better: "lower" },
      { name: "svm.gather_1pct.elsewhere_bytes_over_needed", value: bytesElsewhere, unit: "x", better: "lower" },
      {
        name: "svm.gather_1pct.elsewhere_vs_full_upload",
        value: Math.max(older, younger) / other,
        unit: "x",
        better: "higher",
      },
      {
        name: "svm.gather_1pct.elsewhere_vs_fast_full_upload",
        value: Math.min(older, younger) / other,
        unit: "x",
        better: "higher",
      },
      { name: "svm.gather_1pct.elsewhere_ms", value: other, unit: "ms", better: "lower" },
    ];
  },

  async oversubscribed() {
    const { svm, chunks, bytesOverMinimum } = await withOpen({ deviceMemory: SMALL_MEMORY }, oversubscribed);
    return [
      { name: "svm.oversubscribed.bytes_over_minimum", value: bytesOverMinimum, unit: "x", better: "lower" },
      { name: "svm.oversubscribed.vs_hand_chunked", value: svm / chunks, unit: "x", better: "lower" },
    ];
  },

  async written() {
    const { svm, chunks, bytesOverMinimum } = await withOpen({ deviceMemory: SMALL_MEMORY }, written);
    return [
      { name: "svm.written.bytes_over_minimum", value: bytesOverMinimum, unit: "x", better: "lower" },
      { name: "svm.written.vs_hand_chunked", value: svm / chunks, unit: "x", better: "lower" },
    ];
  },

  async straggler() {
    return [{ name: "svm.straggler_ms", value: await withOpen({}, straggler), unit: "ms", better: "lower" }];
  },

  async chase() {
    const inOrder = await withOpen({}, (pm) => chase(pm, false));
    const shuffled = await withOpen({}, (pm) => chase(pm, true));
    return [
      { name: "svm.chase.rounds", value: inOrder, unit: "rounds", better: "lower" },
      { name: "svm.chase.shuffled_rounds", value: shuffled, unit: "rounds", better: "lower" },
    ];
  },
};

export async function metrics() {
  const all = [];
  for (const part of Object.values(parts)) {
    all.push(...(await part()));
  }
  return all;
}
