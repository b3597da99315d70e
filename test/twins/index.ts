/** The known bugs of the protocol, each as a twin that has it and one that has not. The explorer must tell them apart. */
import { setBugHandler } from "../../src/base/index.ts";
import type { Explored } from "../../src/check/index.ts";
import { setLockdepContext } from "../../src/sync/index.ts";
import { frees } from "./frees.ts";
import { stale } from "./stale.ts";

export const scenarios: Explored["scenarios"] = [...frees, ...stale];

export const connect: Explored["connect"] = (lockdep, onBug) => {
  setLockdepContext(lockdep);
  setBugHandler(onBug);
};
