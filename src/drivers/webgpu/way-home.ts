/** Bringing pages home by what the device remembers of them, rather than by who maps them. */
import { type MemoryObject, type MigrateCause, migrateToRam, waitWhileBusy } from "../../mm/index.ts";

/**
 * Brings pages `[page, end)` that a device held home. They may have been freed meanwhile, and their object be dead: then
 * there is nothing to bring.
 * @throws KernelError ENOMEM when the host has no room
 */
export async function bringHome(object: MemoryObject, page: number, end: number, cause: MigrateCause): Promise<void> {
  if (object.refs === 0) {
    return;
  }
  object.get();
  try {
    await waitWhileBusy(object, page, end);
    await migrateToRam(object, page, end, cause);
  } finally {
    await object.put();
  }
}
