/** What an action of a scenario is, and what its contract asks of its caller. */
import { KernelError } from "../../base/index.ts";
import type { World } from "./world.ts";

/** Prepares what the action needs, before any task runs; returns what the task does. */
export type Action = (world: World) => Promise<() => Promise<void>> | (() => Promise<void>);

/** Errors that say that another task was there first. */
const EXPECTED = new Set(["EFAULT", "EPERM", "EACCES", "ESRCH", "ENODEV", "EHWPOISON", "ENOMEM"]);

/** Runs what may find the space unmapped, protected or gone. */
export async function allowed(world: World, body: () => Promise<unknown>, more: readonly string[] = []): Promise<void> {
  try {
    await body();
  } catch (error) {
    if (!(error instanceof KernelError) || !(EXPECTED.has(error.code) || more.includes(error.code))) {
      throw error;
    }
    world.host.note(() => `fails with ${error.code}`);
  }
}

/** Runs what needs a user of the space, if it still has one. */
export async function withUser(world: World, body: () => Promise<unknown>): Promise<void> {
  const { mm } = world;
  if (!mm.tryGetUsers()) {
    world.host.note(() => "the space has exited");
    return;
  }
  try {
    await body();
  } finally {
    await mm.mmput();
  }
}
