import { chmod, mkdtemp, rm, stat, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { cacheFolder, spareCacheFolder } from "./cache-folder.ts";
import { swiftShaderFiles } from "./swiftshader.ts";

test("ENODEV: other platforms than linux x64 are told so", async () => {
  await expect(swiftShaderFiles({ platform: "linux", arch: "arm64" })).rejects.toMatchObject({
    code: "ENODEV",
    why: "SwiftShader comes for linux x64 only, this is linux arm64: use a machine with a GPU driver",
  });
});

test("ENOENT: a package that is not installed is named with the command that installs it", async () => {
  const resolvePackage = () => {
    throw new Error("Cannot find module");
  };
  await expect(swiftShaderFiles({ platform: "linux", arch: "x64", resolvePackage })).rejects.toMatchObject({
    code: "ENOENT",
    why: expect.stringContaining('run "npm install @sparticuz/chromium'),
  });
});

test("the cache folder is PAGEMIRROR_CACHE when that is set", async () => {
  expect(await cacheFolder({ PAGEMIRROR_CACHE: "/some/where" })).toBe("/some/where");
  expect(await cacheFolder({ PAGEMIRROR_CACHE: "" })).toMatch(/pagemirror/);
});

test.skipIf(process.getuid === undefined)("the spare cache folder is this user's alone, or refused", async () => {
  const temporary = await mkdtemp(join(tmpdir(), "pagemirror-spare-"));
  try {
    const folder = await spareCacheFolder(temporary);
    expect((await stat(folder)).mode & 0o777).toBe(0o700);
    expect(await spareCacheFolder(temporary)).toBe(folder);
    await chmod(folder, 0o777);
    await expect(spareCacheFolder(temporary)).rejects.toMatchObject({ code: "EACCES" });
    await rm(folder, { recursive: true });
    await symlink("/tmp", folder);
    await expect(spareCacheFolder(temporary)).rejects.toMatchObject({ code: "EACCES" });
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
});
