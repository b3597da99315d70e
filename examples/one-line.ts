/** Errors of an example's arguments, files and memory are one line, as the command's are; a mistake in its code has its stack. */
import path from "node:path";

process.on("uncaughtException", (error) => {
  const name = path.basename(process.argv[1] ?? "example");
  const isSaid = "code" in error || error.constructor === Error;
  console.error(isSaid ? `${name}: ${error.message}` : error);
  process.exit(1);
});
