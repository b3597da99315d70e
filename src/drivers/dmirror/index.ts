export { DmirrorDevice } from "./device-memory.ts";
export type { DeviceEntry, DeviceTable } from "./device-table.ts";
export { Dmirror, type DmirrorCounts, type DmirrorOptions, type DmirrorProt } from "./dmirror.ts";
export { DmirrorDriver, type DmirrorOpenOptions } from "./driver.ts";
export { DmirrorPage } from "./snapshot.ts";
