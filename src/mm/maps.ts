/** What an address space holds, as figures and as text. @linux fs/proc/task_mmu.c */
import { PAGE_SIZE, vpnOf } from "../base/index.ts";
import type { AddressSpace } from "./address-space.ts";
import { PTE_PRESENT, PTE_WRITE, PteKind, pteKind } from "./pte.ts";
import { type Vma, VmFlags } from "./vma.ts";

/** Pages by what their entries say. Pages without an entry are in none of the counts but `mapped`. */
export interface PageStates {
  /** Pages of address space. */
  readonly mapped: number;
  /** The CPU may read or write them without asking. */
  readonly present: number;
  /** Of these: it may write. */
  readonly writable: number;
  /** In device memory only. */
  readonly device: number;
  readonly migrating: number;
  readonly poisoned: number;
}

/** Figures of an address space. */
export interface AddressSpaceStats {
  readonly mappings: number;
  readonly pages: PageStates;
  /** Bytes of page tables. */
  readonly pageTableBytes: number;
}

/** Counts of a whole address space. Looks at each entry. */
export function spaceStats(mm: AddressSpace): AddressSpaceStats {
  const vmas = [...mm.vmas.values()];
  return { mappings: vmas.length, pages: sum(vmas.map(pageStates)), pageTableBytes: mm.pageTable.blockCount * 2048 };
}

/** Counts of one mapping. */
export function pageStates(vma: Vma): PageStates {
  const counts = { mapped: vma.pages, present: 0, writable: 0, device: 0, migrating: 0, poisoned: 0 };
  vma.mm.pageTable.forEachRun(vpnOf(vma.start), vpnOf(vma.end), (block, from, to) => {
    for (let i = from; i < to; i++) {
      const pte = block[i];
      if (pte & PTE_PRESENT) {
        counts.present++;
        counts.writable += pte & PTE_WRITE ? 1 : 0;
      } else {
        const kind = pteKind(pte);
        counts.device += kind === PteKind.DevicePrivate ? 1 : 0;
        counts.migrating += kind === PteKind.Migrating ? 1 : 0;
        counts.poisoned += kind === PteKind.Poisoned ? 1 : 0;
      }
    }
  });
  return counts;
}

function sum(parts: readonly PageStates[]): PageStates {
  const total = { mapped: 0, present: 0, writable: 0, device: 0, migrating: 0, poisoned: 0 };
  for (const part of parts) {
    for (const key of Object.keys(total) as (keyof PageStates)[]) {
      total[key] += part[key];
    }
  }
  return total;
}

/** A line a mapping, in the columns of /proc/PID/maps: addresses, permissions, offset in its object, name. */
export function formatMaps(mm: AddressSpace): string {
  return [...mm.vmas.values()].map((vma) => `${mapsLine(vma)}\n`).join("");
}

/** {@link formatMaps} with the figures of each mapping below its line, as /proc/PID/smaps has them. */
export function formatSmaps(mm: AddressSpace): string {
  return [...mm.vmas.values()]
    .map((vma) => {
      const { mapped, present, writable, device, migrating, poisoned } = pageStates(vma);
      const figures = [
        ["Size", mapped],
        ["Present", present],
        ["Writable", writable],
        ["Device", device],
        ["Migrating", migrating],
        ["Poisoned", poisoned],
      ] as const;
      return `${mapsLine(vma)}\n${figures.map(([name, pages]) => smapsFigure(name, pages)).join("")}`;
    })
    .join("");
}

/** A figure of a mapping, as a line of smaps. */
export function smapsFigure(name: string, pages: number): string {
  return `${`${name}:`.padEnd(12)}${String((pages * PAGE_SIZE) / 1024).padStart(12)} kB\n`;
}

/** The addresses of a mapping, as a line of maps begins. */
export function mapsAddresses(start: number, end: number): string {
  return `${hex(start, 12)}-${hex(end, 12)}`;
}

function hex(n: number, digits: number): string {
  return n.toString(16).padStart(digits, "0");
}

function mapsLine({ start, end, flags, pgoff, name }: Vma): string {
  const read = flags & VmFlags.Read ? "r" : "-";
  const write = flags & VmFlags.Write ? "w" : "-";
  const shared = flags & VmFlags.Shared ? "s" : "p";
  return `${mapsAddresses(start, end)} ${read}${write}-${shared} ${hex(pgoff * PAGE_SIZE, 8)} ${name}`;
}
