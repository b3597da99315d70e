/** What a page downloads for the core and the WebGPU driver; see scripts/bundle-size.mjs. */
import { coreBundle } from "../scripts/bundle-size.mjs";

export async function metrics() {
  const { firstKib, laterKib } = await coreBundle();
  return [
    { name: "bundle.core_gzip_kib", value: firstKib, unit: "KiB" },
    { name: "bundle.later_gzip_kib", value: laterKib, unit: "KiB" },
  ];
}
