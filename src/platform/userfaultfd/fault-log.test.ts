import { expect, test } from "vitest";
import type { Errno } from "../../base/index.ts";
import { FaultLog } from "./fault-log.ts";

test("each error is told by its own code, with its address", () => {
  const log = new FaultLog();
  const codes: Errno[] = ["ENOENT", "EIO", "ENOSPC", "EISDIR", "EACCES", "EFAULT"];
  codes.forEach((code, i) => {
    log.report(code, 2 ** 47 + 4096 * i);
  });
  const there = new FaultLog(log.buffer);
  expect(there.since(1)).toEqual(
    codes.slice(1).map((code, i) => ({ index: i + 1, code, address: 2 ** 47 + 4096 * (i + 1) })),
  );
  expect(there.since(0)[0].code).toBe("ENOENT");
});
