/**
 * Looks for the system's Vulkan drivers without starting one: Dawn prints warnings of its own when it is asked on a machine
 * that has no loader or no driver, and a command's standard error belongs to the command.
 */
import { readdirSync } from "node:fs";
import { basename, delimiter, join } from "node:path";

/** Drivers that run on the CPU, by the name of their manifest. */
const SOFTWARE_MANIFEST = /(lvp|lavapipe|swiftshader|swrast|gfxstream|null)/i;

/** The manifests of the drivers that the Vulkan loader would find, by kind. */
export interface SystemVulkan {
  readonly hardware: readonly string[];
  readonly software: readonly string[];
}

/** Finds the driver manifests in the places where the Vulkan loader looks. */
export function systemVulkan(env: NodeJS.ProcessEnv = process.env): SystemVulkan {
  const named = env.VK_DRIVER_FILES ?? env.VK_ICD_FILENAMES;
  const manifests =
    named === undefined || named === ""
      ? [...(env.VK_ADD_DRIVER_FILES ?? "").split(delimiter), ...manifestFolders(env).flatMap(manifestsIn)]
      : named.split(delimiter);
  const found = [...new Set(manifests.filter((path) => path !== ""))];
  return {
    hardware: found.filter((path) => !SOFTWARE_MANIFEST.test(basename(path))),
    software: found.filter((path) => SOFTWARE_MANIFEST.test(basename(path))),
  };
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
  try {
    return readdirSync(folder)
      .filter((name) => name.endsWith(".json"))
      .map((name) => join(folder, name));
  } catch {
    return [];
  }
}
