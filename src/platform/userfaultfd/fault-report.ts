/** What is said of plain accesses that met an error. */
import { KernelError, PAGE_SIZE } from "../../base/index.ts";
import { forEachMapping, type MemoryObject } from "../../mm/index.ts";
import type { UffdTrap } from "./trap.ts";

/** Where a page is in the first space that maps it. */
export function spaceAddress({ object, base }: UffdTrap, page: number): number | undefined {
  let address: number | undefined;
  if (object !== undefined) {
    forEachMapping(object, base + page, base + page + 1, (_vma, vpn) => {
      address ??= vpn * PAGE_SIZE;
    });
  }
  return address;
}

/** What a plain write to a mapping without the right to write comes to. */
export function readOnlyError(object: MemoryObject, page: number): KernelError {
  let what = object.pager?.name ?? "";
  forEachMapping(object, page, page + 1, ({ name }) => {
    what ||= name;
  });
  return new KernelError(
    "EACCES",
    "write",
    `a plain array wrote to ${what}, which is mapped read-only: the bytes changed in memory only; map it "rw" first`,
  );
}
