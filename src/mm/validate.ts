/** Checks an address space against INVARIANTS.md; for tests, and for drivers in doubt. */
import { BugError, blockOfVpn, formatAddr, formatRange, PAGE_SIZE, vpnOf } from "../base/index.ts";
import type { AddressSpace } from "./address-space.ts";
import { framePfn } from "./object-migrate.ts";
import { shadowsLack } from "./object-shadows.ts";
import { PageFlag } from "./page-flags.ts";
import { PTE_PRESENT, PTE_WRITE, PteKind, pteIsKind, ptePfn } from "./pte.ts";
import { canMerge, type Vma, VmFlags } from "./vma.ts";

/** @throws BugError that names the first invariant that does not hold */
export function validateMm(mm: AddressSpace): void {
  let previous: Vma | undefined;
  let entries = 0;
  for (const vma of mm.vmas.values()) {
    const where = () => `${vma.name} ${formatRange(vma)}`;
    if (vma.start % PAGE_SIZE !== 0 || vma.end % PAGE_SIZE !== 0 || vma.start >= vma.end) {
      throw new BugError("I-MM-1", `${where()} is not a page-aligned, non-empty range`);
    }
    if (previous !== undefined && previous.end > vma.start) {
      throw new BugError("I-MM-1", `${where()} overlaps its predecessor`);
    }
    if (previous !== undefined && canMerge(previous, vma)) {
      throw new BugError("I-MM-2", `${where()} and its predecessor should be one`);
    }
    if (vma.rmap === undefined) {
      throw new BugError("I-MM-6", `${where()} is not in its object's reverse map`);
    }
    entries += validateEntries(mm, vma);
    previous = vma;
  }
  const all = countEntries(mm, 0, 2 ** 36);
  if (all !== entries) {
    throw new BugError("I-MM-3", `${all - entries} page-table entries are under no VMA`);
  }
  if (mm.users === 0 && mm.vmas.size > 0) {
    throw new BugError("I-REF-1", "an exited address space has mappings");
  }
}

function countEntries(mm: AddressSpace, vpn: number, end: number): number {
  let count = 0;
  mm.pageTable.forEachRun(vpn, end, (block, from, to) => {
    for (let i = from; i < to; i++) {
      count += block[i] === 0 ? 0 : 1;
    }
  });
  return count;
}

function validateEntries(mm: AddressSpace, vma: Vma): number {
  let count = 0;
  mm.pageTable.forEachRun(vpnOf(vma.start), vpnOf(vma.end), (block, from, to, vpn) => {
    for (let i = from; i < to; i++) {
      if (block[i] !== 0) {
        count++;
        validateEntry(vma, vpn + (i - from), block[i]);
      }
    }
  });
  return count;
}

function validateEntry(vma: Vma, vpn: number, pte: number): void {
  const at = () => `${vma.name} at ${formatAddr(vpn * PAGE_SIZE)}`;
  const page = vma.objectPage(vpn * PAGE_SIZE);
  const flags = vma.object.flagsOf(page);
  if ((pte & PTE_WRITE && !(vma.flags & VmFlags.Write)) || (pte & PTE_PRESENT && !(vma.flags & VmFlags.Read))) {
    throw new BugError("I-MM-4", `the entry of ${at()} grants more than its VMA`);
  }
  if (pte & PTE_PRESENT) {
    if (vma.object.block(blockOfVpn(page)) === undefined || framePfn(vma.object, page) !== ptePfn(pte)) {
      throw new BugError("I-MM-5", `the entry of ${at()} names another page's frame`);
    }
    if (flags & (PageFlag.Device | PageFlag.Poisoned)) {
      throw new BugError("I-MIG-1", `${at()} is mapped for the CPU while its page is on a device or lost`);
    }
    if (pte & PTE_WRITE && !vma.shared && shadowsLack(vma.object, page, page + 1)) {
      throw new BugError("I-MM-4", `${at()} is writable although a copy still reads it`);
    }
  } else if (pteIsKind(pte, PteKind.DevicePrivate)) {
    if (!(flags & PageFlag.Device) || vma.object.devicePfnOf(page) !== ptePfn(pte)) {
      throw new BugError("I-MIG-1", `the device entry of ${at()} does not name where its page is`);
    }
  }
  if (pteIsKind(pte, PteKind.DeviceExclusive) !== vma.object.exclusive.has(page)) {
    throw new BugError("I-MIG-4", `the entry of ${at()} and its object differ on whether a device has it for itself`);
  }
  if (flags & PageFlag.Uptodate && flags & PageFlag.Device) {
    throw new BugError("I-MIG-1", `the bytes of ${at()} are in system and in device memory`);
  }
}
