/** What goes wrong outside of calls: who hears of it, and that nobody waits for ever. */
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterAll, describe, expect, test } from "vitest";
import { KernelError, PAGE_SIZE } from "../base/index.ts";
import { POISON_WORD } from "../platform/userfaultfd/fault-log.ts";
import { probeUserfaultfd } from "../platform/userfaultfd/probe.ts";
import { PlainThread, WORDS } from "../testing/plain-thread.ts";
import { type MemoryErrorEvent, openShared, type SharedMapping, type SharedMirror } from "./index.ts";

const report = probeUserfaultfd();
if (!report.works) {
  console.warn(`tests of errors outside of calls are skipped: ${report.why}`);
}

const viewOf = ({ buffer, byteOffset, length }: SharedMapping) => ({ buffer, byteOffset, byteLength: length });

/** The next `error` event. */
const nextError = (pm: SharedMirror) =>
  new Promise<MemoryErrorEvent>((resolve) => pm.addEventListener("error", resolve, { once: true }));

test("an error is a warning of the process when those who listened have heard theirs, or have gone", async () => {
  await using pm = await openShared({ mmu: "software", device: false });
  const warned: string[] = [];
  const onWarning = ({ message }: Error) => warned.push(message);
  process.on("warning", onWarning);
  try {
    const going = new AbortController();
    const heard: string[] = [];
    pm.addEventListener("error", ({ error }) => heard.push(`once ${error.op}`), { once: true });
    pm.addEventListener("error", ({ error }) => heard.push(error.op), { signal: going.signal });
    for (const op of ["first", "second", "third"]) {
      if (op === "third") {
        going.abort();
      }
      pm.report(new KernelError("EIO", op, "a test says so"));
    }
    await new Promise((resolve) => setImmediate(resolve));
    expect(heard).toEqual(["once first", "first", "second"]);
    expect(warned).toEqual(["third: EIO: a test says so"]);
  } finally {
    process.off("warning", onWarning);
  }
});

describe.skipIf(!report.works)("errors outside of calls", () => {
  const folder = mkdtempSync(path.join(tmpdir(), "pagemirror-trouble-"));
  const file = path.join(folder, "file.bin");
  const bytes = new Uint8Array(64 * PAGE_SIZE).fill(7);
  afterAll(() => rmSync(folder, { recursive: true }));

  test("a plain write to a read-only mapping is an error event, and the file is as it was", async () => {
    writeFileSync(file, bytes);
    await using pm = await openShared({ mmu: "userfaultfd", device: false });
    await using object = await pm.openFile(file);
    const mapping = await pm.mm.mmap({ object, length: bytes.length, shared: true, prot: "r", name: "input" });
    expect(mapping.u8[5 * PAGE_SIZE]).toBe(7);
    const heard = nextError(pm);
    mapping.u8[5 * PAGE_SIZE] = 8;
    const { error, message, address } = await heard;
    expect(error).toMatchObject({ code: "EACCES", op: "write" });
    expect(message).toContain(file);
    expect(address).toBe(mapping.start + 5 * PAGE_SIZE);
    expect(pm.faultErrors()).toMatchObject([{ code: "EACCES" }]);
    expect(readFileSync(file)[5 * PAGE_SIZE]).toBe(7);
  });

  test("a plain write to memory without a file names the mapping", async () => {
    await using pm = await openShared({ mmu: "userfaultfd", device: false });
    const mapping = await pm.mm.mmap({ length: PAGE_SIZE, prot: "r", name: "input" });
    const heard = nextError(pm);
    mapping.u32[0] = 1;
    expect((await heard).message).toContain("wrote to input, which is mapped read-only");
  });

  test("a write that came just before the end is reported too", async () => {
    const pm = await openShared({ mmu: "userfaultfd", device: false });
    const mapping = await pm.mm.mmap({ length: PAGE_SIZE, prot: "r" });
    expect(mapping.u32[0]).toBe(0);
    const heard = nextError(pm);
    mapping.u32[0] = 1;
    await pm.close();
    expect((await heard).error.code).toBe("EACCES");
  });

  test("what was written while it was allowed is no error when it no longer is", async () => {
    const pm = await openShared({ mmu: "userfaultfd", device: false });
    const mapping = await pm.mm.mmap({ length: 4 * PAGE_SIZE });
    mapping.u32[0] = 1;
    await mapping.mprotect("r");
    expect(mapping.u32[0]).toBe(1);
    writeFileSync(file, bytes);
    const object = await pm.openFile(file, { write: true });
    const writable = await pm.mm.mmap({ object, length: bytes.length, shared: true });
    const readable = await pm.mm.mmap({ object, length: bytes.length, shared: true, prot: "r" });
    writable.u32[1024] = 9;
    await writable.munmap();
    expect(readable.u32[1024]).toBe(9);
    await pm.close();
    expect(pm.faultErrors()).toEqual([]);
    expect(readFileSync(file)[PAGE_SIZE]).toBe(9);
  });

  test("a file that became shorter is reported where it is missing, and nobody waits", async () => {
    writeFileSync(file, bytes);
    await using pm = await openShared({ mmu: "userfaultfd", device: false });
    await using object = await pm.openFile(file);
    const mapping = await pm.mm.mmap({ object, length: bytes.length, shared: true, prot: "r" });
    truncateSync(file, 8 * PAGE_SIZE);
    const heard = nextError(pm);
    expect(mapping.u32[1024 * 60]).toBe(POISON_WORD);
    expect((await heard).error).toMatchObject({ code: "EIO" });
  });

  test("file pages come although every thread of libuv's pool waits for one", async () => {
    writeFileSync(file, bytes);
    await using pm = await openShared({ mmu: "userfaultfd", device: false, faultAround: 1 });
    await using object = await pm.openFile(file);
    const copy = await pm.mm.mmap({ object, length: bytes.length });
    await using thread = new PlainThread();
    if (!report.systemCalls) {
      return;
    }
    // More of them than the pool has threads, each from /dev/zero into a page that is still in the file.
    const read = await thread.run<number[]>(
      `const fs = await import("node:fs/promises");
       const zero = await fs.open("/dev/zero");
       const done = Array.from({ length: 16 }, (_, i) =>
         zero.read(new Uint8Array(args.buffer, args.byteOffset + i * 4 * 4096, 8), 0, 8, 0));
       const counts = (await Promise.all(done)).map(({ bytesRead }) => bytesRead);
       await zero.close();
       return counts;`,
      viewOf(copy),
    );
    expect(read).toEqual(Array.from({ length: 16 }, () => 8));
    expect([copy.u8[0], copy.u8[8], copy.u8[60 * PAGE_SIZE + 8]]).toEqual([0, 7, 7]);
  });

  test("a service that hangs is given up: who waits goes on, calls fail, and closing ends", async () => {
    const pm = await openShared({ mmu: "userfaultfd", device: false, stuckMs: 600, faultAround: 1 });
    await using thread = new PlainThread();
    const data = await pm.mm.mmap({ length: 64 * PAGE_SIZE });
    data.u32[0] = 1;
    const heard: string[] = [];
    pm.addEventListener("error", ({ error }) => heard.push(error.code));
    const ended = pm.provoke("hang");
    const stuck = pm.mm.stats();
    stuck.catch(() => undefined);
    // On a busy machine a fault that comes at once may be served before the thread has heard that it is to hang.
    await new Promise((resolve) => setTimeout(resolve, 100));
    const seen = thread.run(`${WORDS} return [Atomics.load(u32, 63 * 1024), new Int32Array(args.log)[0]];`, {
      ...viewOf(data),
      log: pm.faultLog.buffer,
    });
    expect(await seen).toEqual([POISON_WORD, 1]);
    await ended;
    await expect(stuck).rejects.toMatchObject({ code: "ESRCH" });
    expect(heard).toEqual(["EBUSY", "ESRCH"]);
    await expect(pm.close()).rejects.toMatchObject({ code: "ESRCH" });
    await using next = await openShared({ mmu: "userfaultfd", device: false });
    expect((await next.mm.mmap({ length: PAGE_SIZE })).u32[0]).toBe(0);
  });

  test("windows that come and go are given back while the service goes on", async () => {
    await using pm = await openShared({ mmu: "userfaultfd", device: false });
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("gc") as () => void;
    const maps = () => readFileSync("/proc/self/maps", "latin1").split("\n").length;
    const before = maps();
    for (let i = 0; i < 400; i++) {
      const passing = await pm.mm.mmap({ length: 5 * 2 ** 20 });
      passing.u32[0] = i;
      await passing.munmap();
      if (i % 100 === 99) {
        // This thread's own arrays.
        collect();
      }
    }
    // All of them would be more than twice as many; the engine gives them back some time.
    expect(maps() - before).toBeLessThan(1000);
  });

  test("what cannot be opened leaves the thread to the next service", async () => {
    await expect(openShared({ mmu: "userfaultfd", adapter: "voodoo" })).rejects.toMatchObject({ code: "ENODEV" });
    await expect(openShared({ mmu: "userfaultfd", cpu: 4000 })).rejects.toMatchObject({ code: "EINVAL" });
    await using pm = await openShared({ mmu: "userfaultfd", device: false });
    expect((await pm.mm.mmap({ length: PAGE_SIZE })).u32[5]).toBe(0);
  });

  test("stuckMs must be a time", async () => {
    await expect(openShared({ mmu: "userfaultfd", stuckMs: 0 })).rejects.toMatchObject({ code: "EINVAL" });
  });
});
