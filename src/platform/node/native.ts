/** The few calls into the C library and the dynamic loader that choosing a Vulkan driver needs. */
import type koffiModule from "koffi";

type Koffi = typeof koffiModule;

/** The foreign function interface, or the reason why there is none. */
export async function loadKoffi(): Promise<Koffi | Error> {
  try {
    return (await import("koffi")).default;
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

/** Loads a shared library for the whole process and for good. Returns the reason when that fails. */
export function loadLibrary(koffi: Koffi, path: string): Error | undefined {
  try {
    koffi.load(path);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

/**
 * Runs `body` while the C library's environment has these variables, then puts back what was there.
 *
 * `process.env` alone would do in the main thread; in a worker it is a copy that native code does not see.
 */
export async function withNativeEnvironment<T>(
  koffi: Koffi,
  variables: Readonly<Record<string, string>>,
  body: () => Promise<T>,
): Promise<T> {
  const libc = koffi.load("libc.so.6");
  const setenv = libc.func("int setenv(const char *name, const char *value, int overwrite)");
  const unsetenv = libc.func("int unsetenv(const char *name)");
  const getenv = libc.func("const char *getenv(const char *name)");
  const before = Object.keys(variables).map((name) => [name, getenv(name) as string | null] as const);
  for (const [name, value] of Object.entries(variables)) {
    setenv(name, value, 1);
  }
  try {
    return await body();
  } finally {
    for (const [name, value] of before) {
      if (value === null) {
        unsetenv(name);
      } else {
        setenv(name, value, 1);
      }
    }
  }
}
