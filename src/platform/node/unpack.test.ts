import { chmod, mkdir, mkdtemp, readdir, readFile, rm, truncate, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { brotliCompressSync } from "node:zlib";
import tar from "tar-stream";
import { afterEach, beforeEach, expect, test } from "vitest";
import { unpackOnce } from "./unpack.ts";

let root: string;
let cache: string;
let archive: string;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "pagemirror-unpack-"));
  cache = join(root, "cache");
  archive = join(root, "driver.tar.br");
  await writeFile(archive, await pack({ "driver.so": "the driver", "driver.json": "{}", "other.txt": "not wanted" }));
});

afterEach(async () => {
  await rm(root, { recursive: true, force: true });
});

async function pack(files: Record<string, string>): Promise<Buffer> {
  const packer = tar.pack();
  for (const [name, text] of Object.entries(files)) {
    packer.entry({ name: `./${name}` }, text);
  }
  packer.finalize();
  const parts: Buffer[] = [];
  for await (const part of packer) {
    parts.push(part as Buffer);
  }
  return brotliCompressSync(Buffer.concat(parts));
}

function unpack(): Promise<string> {
  return unpackOnce({ archive, cache, name: "driver", files: ["driver.so", "driver.json"] });
}

test("unpacks the wanted files only, and leaves nothing else in the cache", async () => {
  const folder = await unpack();
  expect((await readdir(folder)).sort()).toEqual(["complete.json", "driver.json", "driver.so"]);
  expect(await readFile(join(folder, "driver.so"), "utf8")).toBe("the driver");
  expect(await readdir(cache)).toHaveLength(1);
});

test("uses what is there without unpacking again", async () => {
  const folder = await unpack();
  await writeFile(join(folder, "driver.so"), "THE DRIVER");
  expect(await unpack()).toBe(folder);
  expect(await readFile(join(folder, "driver.so"), "utf8")).toBe("THE DRIVER");
});

test("another archive gets another folder", async () => {
  const folder = await unpack();
  await writeFile(archive, await pack({ "driver.so": "a newer driver", "driver.json": "{}" }));
  const newer = await unpack();
  expect(newer).not.toBe(folder);
  expect(await readFile(join(newer, "driver.so"), "utf8")).toBe("a newer driver");
});

test.each([
  ["a truncated file", (folder: string) => truncate(join(folder, "driver.so"), 3)],
  ["a missing file", (folder: string) => rm(join(folder, "driver.so"))],
  ["no list of files", (folder: string) => rm(join(folder, "complete.json"))],
  ["a list that is no JSON", (folder: string) => writeFile(join(folder, "complete.json"), "{")],
  ["a list that is null", (folder: string) => writeFile(join(folder, "complete.json"), "null")],
])("repairs a folder with %s", async (_, damage) => {
  const folder = await unpack();
  await damage(folder);
  expect(await unpack()).toBe(folder);
  expect(await readFile(join(folder, "driver.so"), "utf8")).toBe("the driver");
  expect(await readdir(cache)).toHaveLength(1);
});

test("repairs a file that stands where the folder belongs", async () => {
  const folder = await unpack();
  await rm(folder, { recursive: true });
  await writeFile(folder, "in the way");
  await unpack();
  expect(await readFile(join(folder, "driver.so"), "utf8")).toBe("the driver");
});

test("many at once, on an empty and on a damaged cache, all get the whole folder", async () => {
  for (let round = 0; round < 3; round++) {
    const folders = await Promise.all(Array.from({ length: 12 }, unpack));
    const [folder = ""] = folders;
    expect(new Set(folders).size).toBe(1);
    expect(await readFile(join(folder, "driver.so"), "utf8")).toBe("the driver");
    expect(await readdir(cache)).toHaveLength(1);
    await truncate(join(folder, "driver.so"), round);
  }
});

test("removes what a process that died left behind, but not what a living one makes", async () => {
  await mkdir(join(cache, ".driver-dead"), { recursive: true });
  await mkdir(join(cache, ".driver-alive"));
  await utimes(join(cache, ".driver-dead"), 1, 1);
  await unpack();
  const names = await readdir(cache);
  expect(names).toContain(".driver-alive");
  expect(names).not.toContain(".driver-dead");
});

test("EACCES: a cache folder that cannot be made names the folder and PAGEMIRROR_CACHE", async () => {
  await writeFile(cache, "a file");
  await expect(unpack()).rejects.toMatchObject({
    code: "EACCES",
    why: expect.stringContaining(`${cache} cannot be written (ENOTDIR): set PAGEMIRROR_CACHE`),
  });
});

test.skipIf(process.getuid?.() === 0)("EACCES: a read-only cache folder", async () => {
  await mkdir(cache);
  await chmod(cache, 0o500);
  await expect(unpack()).rejects.toMatchObject({ code: "EACCES" });
});

test("EINVAL: a damaged archive, and one that lacks a file, leave nothing behind", async () => {
  const whole = await readFile(archive);
  await writeFile(archive, whole.subarray(0, whole.length - 8));
  await expect(unpack()).rejects.toMatchObject({ code: "EINVAL", why: expect.stringContaining("is damaged") });
  await writeFile(archive, "this is no brotli data at all");
  await expect(unpack()).rejects.toMatchObject({ code: "EINVAL", why: expect.stringContaining("is damaged") });
  await writeFile(archive, await pack({ "driver.json": "{}" }));
  await expect(unpack()).rejects.toMatchObject({ code: "EINVAL", why: expect.stringContaining("holds no driver.so") });
  expect(await readdir(cache)).toEqual([]);
});

test("ENOENT: a missing archive says to install the package again", async () => {
  await rm(archive);
  await expect(unpack()).rejects.toMatchObject({ code: "ENOENT", why: expect.stringContaining("npm ci") });
});
