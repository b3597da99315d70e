/** Maps what the command line names. */
import { KernelError } from "../base/index.ts";
import type { SharedMapping, SharedMirror } from "../node.ts";
import { failsAs } from "./errors.ts";
import { visibleLength } from "./run-bind.ts";
import type { MapPlan } from "./run-plan.ts";

async function mapUrl(pm: SharedMirror, name: string, length: number, url: string): Promise<SharedMapping> {
  const object = await pm.openUrl(url);
  try {
    if (object.length !== length) {
      throw new KernelError("EIO", "map", `${url} changed while the command started: run it again`);
    }
    return await pm.mm.mmap({ length: visibleLength(length), object, shared: true, prot: "r", name });
  } finally {
    await object.put();
  }
}

/** Makes the mapping of a `--map`. @throws KernelError what opening and mapping the source throws */
export function mapSource(pm: SharedMirror, map: MapPlan): Promise<SharedMapping> {
  return makeMapping(pm, map).catch(failsAs(`map ${map.name}`));
}

async function makeMapping(pm: SharedMirror, { name, length, file, url }: MapPlan): Promise<SharedMapping> {
  if (url !== undefined) {
    return mapUrl(pm, name, length, url);
  }
  if (file === undefined) {
    return pm.mm.mmap({ length: visibleLength(length), name });
  }
  const object = await pm.openFile(file.path);
  // Written mappings are private during the run: a failed one leaves the file as it was.
  const shared = file.mode === "r";
  const options = { length: visibleLength(length), object, shared, prot: shared ? "r" : "rw", name } as const;
  try {
    return await pm.mm.mmap(options);
  } finally {
    await object.put();
  }
}
