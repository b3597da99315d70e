/**
 * SwiftShader, a Vulkan driver that runs on the CPU, from the npm package that carries it: WebGPU with nothing installed
 * on the system and without root.
 */
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { KernelError } from "../../base/index.ts";
import { cacheFolder, spareCacheFolder } from "./cache-folder.ts";
import { unpackOnce } from "./unpack.ts";

/** The package that carries the driver. */
export const SWIFTSHADER_PACKAGE = "@sparticuz/chromium";

/** The unpacked driver's files. */
export interface SwiftShaderFiles {
  readonly folder: string;
  /** The Vulkan loader. Works for the system's drivers too. */
  readonly loader: string;
  /** The driver's manifest, for VK_DRIVER_FILES. */
  readonly manifest: string;
  /** Why it is not in the user's cache folder. */
  readonly spare?: string;
}

const LOADER = "libvulkan.so.1";
const MANIFEST = "vk_swiftshader_icd.json";
const DRIVER = "libvk_swiftshader.so";

/** What a test replaces. */
export interface SwiftShaderOptions {
  readonly platform?: string;
  readonly arch?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** The folder of temporary files. */
  readonly temporary?: string;
  /** Finds the package's entry file; throws when the package is not installed. */
  readonly resolvePackage?: (name: string) => string;
}

/**
 * Unpacks SwiftShader into the cache folder, once, and says where it is.
 *
 * Errors: ENODEV when the package has no build for this platform, ENOENT when it is not installed, and those of
 * {@link unpackOnce}.
 */
export async function swiftShaderFiles(options: SwiftShaderOptions = {}): Promise<SwiftShaderFiles> {
  const platform = options.platform ?? process.platform;
  const arch = options.arch ?? process.arch;
  if (platform !== "linux" || arch !== "x64") {
    throw new KernelError(
      "ENODEV",
      "adapter",
      `SwiftShader comes for linux x64 only, this is ${platform} ${arch}: use a machine with a GPU driver`,
    );
  }
  const archive = join(packageFolder(options.resolvePackage), "bin", "swiftshader.tar.br");
  const env = options.env ?? process.env;
  const unpack = async (cache: string, spare?: string): Promise<SwiftShaderFiles> => {
    const folder = await unpackOnce({ archive, cache, name: "swiftshader", files: [LOADER, MANIFEST, DRIVER] });
    const files = { folder, loader: join(folder, LOADER), manifest: join(folder, MANIFEST) };
    return spare === undefined ? files : { ...files, spare };
  };
  const own = await cacheFolder(env);
  try {
    return await unpack(own);
  } catch (error) {
    // A folder that was chosen is the one that is meant.
    if ((env.PAGEMIRROR_CACHE ?? "") !== "" || !(error instanceof KernelError) || !BAD_FOLDER.has(error.code)) {
      throw error;
    }
    const folder = await spareCacheFolder(options.temporary).catch(() => undefined);
    if (folder === undefined) {
      throw error;
    }
    return unpack(folder, error.why);
  }
}

/** What unpacking fails with where the folder is at fault. */
const BAD_FOLDER: ReadonlySet<string> = new Set(["EACCES", "ENOSPC", "EIO"]);

function packageFolder(resolvePackage: (name: string) => string = createRequire(import.meta.url).resolve): string {
  let entry: string;
  try {
    entry = resolvePackage(SWIFTSHADER_PACKAGE);
  } catch (error) {
    throw new KernelError(
      "ENOENT",
      "adapter",
      `the optional package ${SWIFTSHADER_PACKAGE} is not installed: run "npm install ${SWIFTSHADER_PACKAGE}@147.0.0"`,
      { cause: error },
    );
  }
  // The package exports its entry file only, which lies in build/cjs.
  return dirname(dirname(dirname(entry)));
}
