/** AddressSpace against a naive model: a map from page to what a byte there is. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { addrOf, PAGE_SIZE, vpnOf } from "../base/index.ts";
import {
  createMemory,
  createMm,
  drawMaps,
  errorCode,
  FakeDevice,
  filledBytes,
  TestHooks,
  TestPager,
} from "../testing/mm.ts";
import { BASE } from "../testing/spaces.ts";
import {
  type AddressSpace,
  Mapping,
  MemoryObject,
  type Prot,
  msync as syncRange,
  VmFlags,
  validateMm,
} from "./index.ts";

/** The pages that commands touch, from BASE on: across a page-table block's end. */
const PAGES = 24;
const START = BASE + (512 - 10) * PAGE_SIZE;
const FILE_PAGES = 6;

const at = (page: number): number => START + page * PAGE_SIZE;

/** One page as the model sees it. Shared pages are cells of an object's list; a cell that is missing is past its end. */
type ModelPage =
  | { readonly kind: "private"; prot: Prot; value: number; readonly base: number }
  | { readonly kind: "shared"; prot: Prot; readonly cells: number[]; readonly index: number };

interface ModelSpace {
  pages: (ModelPage | undefined)[];
}

interface Model {
  readonly spaces: ModelSpace[];
  readonly fileCells: number[];
}

interface Real {
  readonly spaces: AddressSpace[];
  readonly device: FakeDevice;
  readonly file: MemoryObject;
  readonly pager: TestPager;
  readonly readOnly: MemoryObject;
}

type Step = (model: Model, real: Real) => Promise<void>;

class Op implements fc.AsyncCommand<Model, Real> {
  readonly #name: string;
  readonly #step: Step;

  constructor(name: string, step: Step) {
    this.#name = name;
    this.#step = step;
  }

  check(): boolean {
    return true;
  }

  async run(model: Model, real: Real): Promise<void> {
    await this.#step(model, real);
    for (const [i, mm] of real.spaces.entries()) {
      validateMm(mm);
      const mapped = model.spaces[i].pages.map((page) => (page === undefined ? "." : letter(page.prot))).join("");
      expect(drawMaps(mm, START, PAGES).replace(/[a-z]/g, "r").replace(/[A-Z]/g, "W")).toBe(mapped);
    }
  }

  toString(): string {
    return this.#name;
  }
}

function letter(prot: Prot): string {
  return prot === "rw" ? "W" : prot === "r" ? "r" : "-";
}

function contentOf(page: ModelPage): number | undefined {
  return page.kind === "private" ? page.value : page.cells[page.index];
}

function copyPage(page: ModelPage | undefined): ModelPage | undefined {
  return page === undefined ? undefined : { ...page };
}

const space = fc.nat({ max: 7 });
const page = fc.nat({ max: PAGES - 1 });
const count = fc.integer({ min: 1, max: 7 });
const prot = fc.constantFrom<Prot>("none", "r", "rw", "rw");
const clip = (first: number, n: number): number => Math.min(n, PAGES - first);
const pick = (spaces: readonly unknown[], i: number): number => i % spaces.length;

const mmap = fc
  .tuple(space, page, count, prot, fc.constantFrom("anon", "shared", "file", "cow"), fc.nat({ max: 2 }))
  .map(([s, first, n, access, what, offset]) => {
    const pages = clip(first, n);
    return new Op(`mmap(${s}, ${first}, ${pages}, ${access}, ${what}+${offset})`, async (model, real) => {
      const i = pick(real.spaces, s);
      await real.spaces[i].mmap({
        addr: at(first),
        fixed: true,
        length: pages * PAGE_SIZE - 7,
        prot: access,
        shared: what === "shared" || what === "file",
        object: what === "file" ? real.file : what === "cow" ? real.readOnly : undefined,
        offset: what === "file" || what === "cow" ? offset * PAGE_SIZE : 0,
        name: "m",
      });
      const cells = what === "file" ? model.fileCells : new Array<number>(pages).fill(0);
      for (let p = 0; p < pages; p++) {
        const base = what === "cow" && offset + p < FILE_PAGES ? 200 + offset + p : 0;
        model.spaces[i].pages[first + p] =
          what === "shared" || what === "file"
            ? { kind: "shared", prot: access, cells, index: (what === "file" ? offset : 0) + p }
            : { kind: "private", prot: access, value: base, base };
      }
    });
  });

const munmap = fc.tuple(space, page, count).map(([s, first, n]) => {
  const pages = clip(first, n);
  return new Op(`munmap(${s}, ${first}, ${pages})`, async (model, real) => {
    const i = pick(real.spaces, s);
    await real.spaces[i].munmap(at(first), pages * PAGE_SIZE);
    model.spaces[i].pages.fill(undefined, first, first + pages);
  });
});

const mprotect = fc.tuple(space, page, count, prot).map(([s, first, n, access]) => {
  const pages = clip(first, n);
  return new Op(`mprotect(${s}, ${first}, ${pages}, ${access})`, async (model, real) => {
    const i = pick(real.spaces, s);
    const range = model.spaces[i].pages.slice(first, first + pages);
    const code = await errorCode(() => real.spaces[i].mprotect(at(first), pages * PAGE_SIZE, access));
    expect(code).toBe(range.includes(undefined) ? "ENOMEM" : "none");
    if (code === "none") {
      for (const one of range) {
        if (one !== undefined) {
          one.prot = access;
        }
      }
    }
  });
});

const madvise = fc.tuple(space, page, count).map(([s, first, n]) => {
  const pages = clip(first, n);
  return new Op(`madvise(${s}, ${first}, ${pages})`, async (model, real) => {
    const i = pick(real.spaces, s);
    const range = model.spaces[i].pages.slice(first, first + pages);
    const code = await errorCode(() => real.spaces[i].madvise(at(first), pages * PAGE_SIZE, "dontneed"));
    expect(code).toBe(range.includes(undefined) ? "ENOMEM" : "none");
    if (code === "none") {
      for (const one of range) {
        if (one?.kind === "private") {
          one.value = one.base;
        }
      }
    }
  });
});

const mremap = fc
  .tuple(space, page, count, count, fc.option(page, { nil: undefined }))
  .map(([s, first, n, m, target]) => {
    const oldPages = clip(first, n);
    const newPages = Math.min(clip(first, m), target === undefined ? PAGES : clip(target, m));
    return new Op(`mremap(${s}, ${first}, ${oldPages} -> ${newPages} at ${target})`, async (model, real) => {
      const i = pick(real.spaces, s);
      const mm = real.spaces[i];
      const { pages } = model.spaces[i];
      const vma = mm.vmas.find(at(first));
      const end = first + oldPages;
      let expected = "none";
      if (vma === undefined || vma.end < at(end)) {
        expected = "EFAULT";
      } else if (target !== undefined && target < end && first < target + newPages) {
        expected = "EINVAL";
      } else if (target === undefined && newPages > oldPages) {
        const room = pages.slice(end, first + newPages).every((p) => p === undefined);
        expected = room && vma.end === at(end) ? "none" : "ENOMEM";
      }
      const code = await errorCode(() =>
        mm.mremap(at(first), oldPages * PAGE_SIZE, newPages * PAGE_SIZE, {
          addr: target === undefined ? undefined : at(target),
          mayMove: false,
        }),
      );
      expect(code).toBe(expected);
      if (code === "none") {
        const moved = pages.slice(first, end);
        pages.fill(undefined, first, end);
        const last = moved[moved.length - 1];
        for (let p = 0; p < newPages; p++) {
          pages[(target ?? first) + p] = p < oldPages ? moved[p] : grownPage(last, p - oldPages + 1);
        }
      }
    });
  });

function grownPage(last: ModelPage | undefined, by: number): ModelPage | undefined {
  return last?.kind === "shared"
    ? { ...last, index: last.index + by }
    : last && { kind: "private", prot: last.prot, value: 0, base: 0 };
}

const fork = space.map(
  (s) =>
    new Op(`fork(${s})`, async (model, real) => {
      if (real.spaces.length < 4) {
        const i = pick(real.spaces, s);
        real.spaces.push(await real.spaces[i].fork());
        model.spaces.push({ pages: model.spaces[i].pages.map(copyPage) });
      }
    }),
);

const exit = space.map(
  (s) =>
    new Op(`exit(${s})`, async (model, real) => {
      if (real.spaces.length > 1) {
        const i = pick(real.spaces, s);
        await real.spaces[i].mmput();
        real.spaces.splice(i, 1);
        model.spaces.splice(i, 1);
      }
    }),
);

async function access(real: Real, i: number, p: number, mode: "r" | "rw", act: (bytes: Uint8Array) => void) {
  const mm = real.spaces[i];
  const vma = mm.vmas.find(at(p));
  if (vma === undefined) {
    return "EFAULT";
  }
  const whole = new Mapping(mm, addrOf(vpnOf(at(p))), PAGE_SIZE, "page");
  return errorCode(async () => {
    using lease = await whole.lease(mode);
    act(lease.u8);
  });
}

const read = fc.tuple(space, page).map(
  ([s, p]) =>
    new Op(`read(${s}, ${p})`, async (model, real) => {
      const i = pick(real.spaces, s);
      await checkPage(model, real, i, p);
    }),
);

async function checkPage(model: Model, real: Real, i: number, p: number): Promise<void> {
  const one = model.spaces[i].pages[p];
  const value = one && contentOf(one);
  const expected = one === undefined || one.prot === "none" || value === undefined ? "EFAULT" : "none";
  const code = await access(real, i, p, "r", (bytes) => {
    expect([bytes[0], bytes[PAGE_SIZE - 1]], `page ${p} of space ${i}`).toEqual([value, value]);
  });
  expect(code).toBe(expected);
}

const write = fc.tuple(space, page, fc.integer({ min: 1, max: 199 })).map(
  ([s, p, value]) =>
    new Op(`write(${s}, ${p}, ${value})`, async (model, real) => {
      const i = pick(real.spaces, s);
      const one = model.spaces[i].pages[p];
      let expected = "none";
      if (one === undefined || one.prot === "none") {
        expected = "EFAULT";
      } else if (one.prot === "r") {
        expected = "EACCES";
      } else if (contentOf(one) === undefined) {
        expected = "EFAULT";
      }
      const code = await access(real, i, p, "rw", (bytes) => {
        bytes[0] = value;
        bytes[PAGE_SIZE - 1] = value;
      });
      expect(code).toBe(expected);
      if (code === "none" && one?.kind === "private") {
        one.value = value;
      } else if (code === "none" && one?.kind === "shared") {
        one.cells[one.index] = value;
      }
    }),
);

const toDevice = fc.tuple(space, page, count).map(
  ([s, first, n]) =>
    new Op(`toDevice(${s}, ${first}, ${n})`, async (_model, real) => {
      const vma = real.spaces[pick(real.spaces, s)].vmas.find(at(first));
      if (vma !== undefined) {
        const from = vma.objectPage(at(first));
        const end = Math.min(vma.pgoff + vma.pages, from + n);
        await real.device.take(vma.object, from, end);
      }
    }),
);

const msync = space.map(
  (s) =>
    new Op(`msync(${s})`, async (model, real) => {
      const mm = real.spaces[pick(real.spaces, s)];
      for (const vma of mm.vmas.values()) {
        if (vma.flags & VmFlags.Shared) {
          await syncRange(mm, vma.start, vma.end - vma.start);
          for (let p = vma.pgoff; vma.object === real.file && p < Math.min(FILE_PAGES, vma.pgoff + vma.pages); p++) {
            expect(real.pager.bytes[p * PAGE_SIZE], `page ${p} of the file`).toBe(model.fileCells[p]);
          }
        }
      }
    }),
);

test("any sequence of system calls leaves what the byte model says, and every invariant holds after each", async () => {
  const all = [mmap, mmap, munmap, mprotect, madvise, mremap, fork, exit, read, write, write, toDevice, msync];
  await fc.assert(
    fc.asyncProperty(fc.commands(all, { size: "max", maxCommands: 60 }), async (commands) => {
      const memory = createMemory();
      const pager = new TestPager(filledBytes(FILE_PAGES, (p) => 100 + p));
      const readOnly = new TestPager(
        filledBytes(FILE_PAGES, (p) => 200 + p),
        { writable: false },
      );
      const first = createMm(memory);
      TestHooks.on(first);
      const real: Real = {
        spaces: [first],
        device: new FakeDevice(memory, 4096),
        pager,
        file: new MemoryObject(memory, { pages: FILE_PAGES, pager }),
        readOnly: new MemoryObject(memory, { pages: FILE_PAGES, pager: readOnly }),
      };
      const model: Model = {
        spaces: [{ pages: new Array<undefined>(PAGES).fill(undefined) }],
        fileCells: Array.from({ length: FILE_PAGES }, (_, p) => 100 + p),
      };
      try {
        await fc.asyncModelRun(() => ({ model, real }), commands);
        for (const [i] of real.spaces.entries()) {
          for (let p = 0; p < PAGES; p++) {
            await checkPage(model, real, i, p);
          }
        }
      } finally {
        for (const mm of real.spaces) {
          await mm.mmput();
        }
        await real.file.put();
        await real.readOnly.put();
      }
      expect(Array.from({ length: FILE_PAGES }, (_, p) => pager.bytes[p * PAGE_SIZE])).toEqual(model.fileCells);
      real.device.remove();
    }),
    { numRuns: Number(process.env.PM_RUNS ?? 200) },
  );
}, 120_000);
