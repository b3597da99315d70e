import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { expect, test } from "vitest";
import { openGpuDevice } from "../../drivers/webgpu/gpu-handle.ts";
import { openDawn } from "./dawn.ts";

/** The packaged software driver is for this platform only. */
const packaged = process.platform === "linux" && process.arch === "x64";

test("the default adapter gives a device, and the report says which it is and why", async () => {
  const { adapter, report, close } = await openDawn();
  const gpu = await openGpuDevice(adapter, "default");
  try {
    expect(gpu.limits.maxStorageBufferBindingSize).toBe(report.limits.maxStorageBufferBindingSize);
    expect(gpu.limits.maxBufferSize).toBe(report.limits.maxBufferSize);
    expect(report.name).not.toBe("");
    expect(report.why).not.toBe("");
    expect(report.tried[0]?.what).toMatch(/^system (Vulkan|Metal|D3D12) driver$/);
    expect(report.tried.at(-1)?.result).toContain(report.name);
  } finally {
    gpu.destroy();
    close();
  }
});

test.skipIf(!packaged)("opening an adapter leaves the environment as it was", async () => {
  const before = { ...process.env };
  (await openDawn({ adapter: "swiftshader" })).close();
  expect({ ...process.env }).toEqual(before);
});

test.skipIf(!packaged)("swiftshader by name, and by a part of its name, is the packaged driver", async () => {
  for (const adapter of ["swiftshader", "SwiftShader", "subzero"]) {
    const opened = await openDawn({ adapter });
    expect(opened.report.kind).toBe("software");
    expect(opened.report.name).toContain("swiftshader");
    expect(opened.report.why).toContain(adapter);
    expect(opened.report.driverFiles.length).toBeGreaterThan(0);
    opened.close();
    opened.close();
  }
});

test.skipIf(!packaged)("ENODEV: an unknown name lists what there is and what to write", async () => {
  await expect(openDawn({ adapter: "voodoo 2" })).rejects.toMatchObject({
    code: "ENODEV",
    why: expect.stringMatching(
      /no adapter here is "voodoo 2".*SwiftShader from @sparticuz\/chromium: "swiftshader.*leave out --adapter/,
    ),
  });
});

test("ENODEV: an adapter gives one device only", async () => {
  const { adapter, close } = await openDawn();
  const gpu = await openGpuDevice(adapter, "first");
  await expect(openGpuDevice(adapter, "second")).rejects.toMatchObject({
    code: "ENODEV",
    why: expect.stringContaining("open the adapter anew"),
  });
  gpu.destroy();
  close();
});

const dawn = new URL("./dawn.ts", import.meta.url).href;

async function runChild(script: string, env: Record<string, string> = {}) {
  const tsx = import.meta.resolve("tsx");
  const child = spawn(process.execPath, ["--import", tsx, "--input-type=module", "-e", script], {
    env: { ...process.env, ...env },
    cwd: fileURLToPath(new URL(".", import.meta.url)),
  });
  let out = "";
  let err = "";
  child.stdout.on("data", (data) => {
    out += String(data);
  });
  child.stderr.on("data", (data) => {
    err += String(data);
  });
  const [code, signal] = await once(child, "close");
  return { code, signal, out, err };
}

test.skipIf(!packaged).each([
  ["a destroyed device", "device.destroy(); opened.close();"],
  [
    "a living device and a mapping under way",
    "device.createBuffer({ size: 64, usage: 9 }).mapAsync(1).catch(() => {});",
  ],
])("a process with %s ends by itself and prints nothing of its own", async (_, end) => {
  const result = await runChild(`
    const { openDawn } = await import(${JSON.stringify(dawn)});
    const opened = await openDawn({ adapter: "swiftshader" });
    const device = await opened.adapter.requestDevice();
    ${end}
    console.log("end");
  `);
  expect(result).toEqual({ code: 0, signal: null, out: "end\n", err: expect.not.stringContaining("Warning") });
});

test.skipIf(!packaged)("ENODEV: without a cache folder the message names it and the remedy", async () => {
  const result = await runChild(
    `const { openDawn } = await import(${JSON.stringify(dawn)});
     await openDawn({ adapter: "swiftshader" }).catch((error) => console.log(error.code, error.why));`,
    { PAGEMIRROR_CACHE: "/dev/null/cache" },
  );
  expect(result.out).toMatch(/^ENODEV .*\/dev\/null\/cache cannot be written \(ENOTDIR\) \(set PAGEMIRROR_CACHE/);
});

test.skipIf(!packaged)("a user whose cache folder cannot be written gets one among the temporary files", async () => {
  const temporary = await mkdtemp(join(tmpdir(), "pagemirror-spare-"));
  try {
    const result = await runChild(
      `const { openDawn } = await import(${JSON.stringify(dawn)});
       const { report, close } = await openDawn({ adapter: "swiftshader" });
       console.log(report.tried.at(-1).result);
       close();`,
      { PAGEMIRROR_CACHE: "", XDG_CACHE_HOME: "/dev/null", TMPDIR: temporary },
    );
    expect(result.out).toContain(`unpacked into ${temporary}/pagemirror-`);
    expect(result.out).toContain("/dev/null/pagemirror cannot be written (ENOTDIR)");
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
});

test.skipIf(!packaged)("a device that was closed is collected: nothing of Dawn's holds it", async () => {
  const handle = JSON.stringify(new URL("../../drivers/webgpu/gpu-handle.ts", import.meta.url).href);
  const result = await runChild(`
    const { setFlagsFromString } = await import("node:v8");
    const { runInNewContext } = await import("node:vm");
    const { openDawn } = await import(${JSON.stringify(dawn)});
    const { openGpuDevice } = await import(${handle});
    setFlagsFromString("--expose_gc");
    const gc = runInNewContext("gc");
    async function use() {
      const opened = await openDawn({ adapter: "swiftshader" });
      const gpu = await openGpuDevice(opened.adapter, "closed");
      const device = new WeakRef(gpu.device);
      gpu.destroy();
      opened.close();
      return device;
    }
    const device = await use();
    for (let i = 0; i < 50 && device.deref() !== undefined; i++) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      gc();
    }
    console.log(device.deref() === undefined ? "collected" : "held");
  `);
  expect(result.out).toBe("collected\n");
});

test.skipIf(!packaged)("a worker thread can open the packaged driver too", async () => {
  const worker = new Worker(
    `const { parentPort, workerData } = require("node:worker_threads");
     import(workerData.tsx).then(({ register }) => { register(); return import(workerData.dawn); })
       .then(({ openDawn }) => openDawn({ adapter: "swiftshader" }))
       .then((opened) => { parentPort.postMessage(opened.report.name); opened.close(); });`,
    { eval: true, workerData: { dawn, tsx: import.meta.resolve("tsx/esm/api") } },
  );
  const [name] = await once(worker, "message");
  expect(name).toContain("swiftshader");
  await worker.terminate();
});
