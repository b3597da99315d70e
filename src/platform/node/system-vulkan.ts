/**
 * Looks for the system's Vulkan drivers without starting one: Dawn prints warnings of its own when it is asked on a machine
 * that has no loader or no driver, and a command's standard error belongs to the command.
 */
import { readdirSync } from "node:fs";
import { basename, delimiter, join } from "node:path";

/** Drivers that run on the CPU, by the name of their manifest. */
const SOFTWARE_MANIFEST = /(lvp|lavapipe|swiftshader|swrast|gfxstream|null)/i;

/**
 * Drivers that come with Mesa and the like to machines without their GPU, by the name of their manifest, and the device files
 * of which they open one. Others are asked whether they find a GPU: Nvidia's makes its device files when it is.
 */
const NEEDS_DEVICE: readonly (readonly [manifest: RegExp, folder: string, device: RegExp])[] = [
  [/^(amd|asahi|broadcom|intel|nouveau|panfrost|powervr|radeon|virtio)/i, "dri", /^renderD/],
  [/^dzn/i, "", /^dxg$/],
];

/** The manifests of the drivers that the Vulkan loader would find, by kind. */
export interface SystemVulkan {
  readonly hardware: readonly string[];
  readonly software: readonly string[];
  /** Of GPUs that this machine, or container, does not have. */
  readonly absent: readonly string[];
}

/** Finds the driver manifests in the places where the Vulkan loader looks; `devices` is the folder of device files. */
export function systemVulkan(env: NodeJS.ProcessEnv = process.env, devices = "/dev"): SystemVulkan {
  const named = env.VK_DRIVER_FILES ?? env.VK_ICD_FILENAMES;
  const manifests =
    named === undefined || named === ""
      ? [...(env.VK_ADD_DRIVER_FILES ?? "").split(delimiter), ...manifestFolders(env).flatMap(manifestsIn)]
      : named.split(delimiter);
  const found = [...new Set(manifests.filter((path) => path !== ""))];
  const kindOf = (path: string): keyof SystemVulkan => {
    const name = basename(path);
    if (SOFTWARE_MANIFEST.test(name)) {
      return "software";
    }
    const needed = NEEDS_DEVICE.find(([manifest]) => manifest.test(name));
    return needed === undefined || entriesOf(join(devices, needed[1])).some((entry) => needed[2].test(entry))
      ? "hardware"
      : "absent";
  };
  const ofKind = (kind: keyof SystemVulkan) => found.filter((path) => kindOf(path) === kind);
  return { hardware: ofKind("hardware"), software: ofKind("software"), absent: ofKind("absent") };
}

function manifestFolders(env: NodeJS.ProcessEnv): string[] {
  const home = env.HOME;
  const list = (name: string, otherwise: string) => (env[name] || otherwise).split(delimiter);
  const roots = [
    ...(home === undefined ? [] : list("XDG_CONFIG_HOME", join(home, ".config"))),
    ...list("XDG_CONFIG_DIRS", "/etc/xdg"),
    "/etc",
    ...(home === undefined ? [] : list("XDG_DATA_HOME", join(home, ".local/share"))),
    ...list("XDG_DATA_DIRS", ["/usr/local/share", "/usr/share"].join(delimiter)),
    "/usr/local/share",
    "/usr/share",
  ];
  return [...new Set(roots)].map((root) => join(root, "vulkan", "icd.d"));
}

function manifestsIn(folder: string): string[] {
  return entriesOf(folder)
    .filter((name) => name.endsWith(".json"))
    .map((name) => join(folder, name));
}

function entriesOf(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
