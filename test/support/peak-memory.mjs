/** Loaded with --import: writes the process's peak resident memory, in KiB, to the file PEAK_MEMORY_FILE names at exit. */
import { readFileSync, writeFileSync } from "node:fs";

process.on("exit", () => {
  const peak = /VmHWM:\s*(\d+) kB/.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "";
  writeFileSync(process.env.PEAK_MEMORY_FILE, peak);
});
