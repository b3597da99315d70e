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
  expect(systemVulkan({ VK_DRIVER_FILES: "/a/vendor_icd.json:/b/vk_swiftshader_icd.json" })).toEqual({
    hardware: ["/a/vendor_icd.json"],
    software: ["/b/vk_swiftshader_icd.json"],
    absent: [],
  });
});

test("drivers that open a device file are worth asking only where there is one", async () => {
  const devices = await mkdtemp(join(tmpdir(), "pagemirror-dev-"));
  try {
    const mesa = ["radeon_icd.x86_64.json", "intel_hasvk_icd.json", "nouveau_icd.json"];
    const env = { VK_DRIVER_FILES: [...mesa, "dzn_icd.json", "nvidia_icd.json", "lvp_icd.json"].join(":") };
    expect(systemVulkan(env, join(devices, "none"))).toEqual({
      hardware: ["nvidia_icd.json"],
      software: ["lvp_icd.json"],
      absent: [...mesa, "dzn_icd.json"],
    });
    await mkdir(join(devices, "dri"));
    // What a server's management controller shows its screen with: no GPU.
    await writeFile(join(devices, "dri", "card0"), "");
    expect(systemVulkan(env, devices).absent).toContain("radeon_icd.x86_64.json");
    await writeFile(join(devices, "dri", "renderD128"), "");
    expect(systemVulkan(env, devices)).toMatchObject({
      hardware: [...mesa, "nvidia_icd.json"],
      absent: ["dzn_icd.json"],
    });
    await writeFile(join(devices, "dxg"), "");
    expect(systemVulkan(env, devices).hardware).toContain("dzn_icd.json");
  } finally {
    await rm(devices, { recursive: true, force: true });
  }
});
