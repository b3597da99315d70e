/** Loaded with --import: writes the native libraries that the process has loaded to the file LIBRARIES_FILE names at exit. */
import { writeFileSync } from "node:fs";

process.on("exit", () => {
  writeFileSync(process.env.LIBRARIES_FILE, process.report.getReport().sharedObjects.join("\n"));
});
