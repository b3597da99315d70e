/**
 * Runs before each test file: a WARN fails the test that caused it unless the test took it with `takeBugs()`, and lockdep
 * watches every task.
 */
import { createLockdepContext } from "../platform/node/lockdep-context.ts";
import { setLockdepContext } from "../sync/index.ts";
import "./after-each.ts";

setLockdepContext(createLockdepContext());
