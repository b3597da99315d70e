import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { systemVulkan } from "./system-vulkan.ts";

test("finds driver manifests where the Vulkan loader does, and tells drivers for the CPU apart", async () => {
  const data = await mkdtemp(join(tmpdir(), "pagemirror-icd-"));
  try {
    const folder = join(data, "vulkan", "icd.d");
    await mkdir(folder, { recursive: true });
    for (const name of ["nvidia_icd.json", "lvp_icd.x86_64.json", "README"]) {
      await writeFile(join(folder, name), "{}");
    }
    const found = systemVulkan({ HOME: "/nowhere", XDG_DATA_DIRS: `/nowhere:${data}` });
    expect(found.hardware).toContain(join(folder, "nvidia_icd.json"));
    expect(found.software).toContain(join(folder, "lvp_icd.x86_64.json"));
    expect([...found.hardware, ...found.software]).not.toContain(join(folder, "README"));
  } finally {
    await rm(data, { recursive: true, force: true });
  }
});

test("drivers named by VK_DRIVER_FILES replace those of the system", () => {
  expect(systemVulkan({ VK_DRIVER_FILES: "/a/radeon_icd.json:/b/vk_swiftshader_icd.json" })).toEqual({
    hardware: ["/a/radeon_icd.json"],
    software: ["/b/vk_swiftshader_icd.json"],
  });
});
