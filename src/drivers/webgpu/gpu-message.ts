/** What GPU implementations say is wrong, for errors of one line. */

/**
 * One line of a message: its first that is not empty (the rest is Dawn's call stack, or Firefox's picture of the source), and
 * the reason, which Firefox gives in a later one.
 */
export function gpuMessage(message: string): string {
  const lines = message.split("\n").map((line) => line.trim());
  const what = (lines.find((line) => line !== "") ?? "").replace(/^Shader '.*' parsing error: /, "");
  const reason = lines.find((line) => line.startsWith("= "));
  return reason === undefined ? what : `${what}: ${reason.slice(2)}`;
}
