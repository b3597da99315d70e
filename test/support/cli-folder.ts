/** A folder for each test of the built command, with kernels and data in it. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeAll, beforeEach } from "vitest";
import { ensureBuilt, pagemirror } from "./built.ts";

/** Adds 1 to each word of `values`. */
export const ADD = `
@group(0) @binding(0) var<storage, read_write> values: array<u32>;
@compute @workgroup_size(64) fn add(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < arrayLength(&values)) { values[id.x] += 1; }
}`;
const COPY = `
struct Params { scale: u32, shift: vec2u }
@group(0) @binding(0) var<storage, read> data: array<u32>;
@group(0) @binding(1) var<storage, read_write> result: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;
@compute @workgroup_size(64) fn copy(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < min(arrayLength(&data), arrayLength(&result))) {
    result[id.x] = data[id.x] * params.scale + params.shift.x + params.shift.y;
  }
}`;
const FOREVER = `
@group(0) @binding(0) var<storage, read_write> values: array<u32>;
@compute @workgroup_size(1) fn forever() {
  for (var i = 0u; i < 4000000000u; i++) { values[i % 4] += i * values[(i + 1) % 4] + 1; }
}`;

/** Where a test's command runs. */
export interface CliFolder {
  readonly path: string;
  /** The path of a file in it. */
  at(name: string): string;
  /** `pagemirror run` in it. */
  run(args: readonly string[], options?: Parameters<typeof pagemirror>[1]): ReturnType<typeof pagemirror>;
}

/** Makes the folder before each test of a file, with add.wgsl, copy.wgsl, forever.wgsl and data.bin. Call it at the top of the file. */
export function useCliFolder(): CliFolder {
  let folder = "";
  const at = (name: string) => path.join(folder, name);
  beforeAll(ensureBuilt, 180_000);
  beforeEach(() => {
    folder = mkdtempSync(path.join(tmpdir(), "pagemirror-cli-"));
    writeFileSync(at("add.wgsl"), ADD);
    writeFileSync(at("copy.wgsl"), COPY);
    writeFileSync(at("forever.wgsl"), FOREVER);
    writeFileSync(
      at("data.bin"),
      Uint32Array.from({ length: 100 }, (_, i) => i),
    );
  });
  afterEach(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  return {
    get path() {
      return folder;
    },
    at,
    run: (args, options = {}) => pagemirror(["run", ...args], { cwd: folder, ...options }),
  };
}
