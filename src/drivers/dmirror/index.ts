export type { DeviceEntry, DeviceTable } from "./device-table.ts";
export { Dmirror, type DmirrorProt } from "./dmirror.ts";
export { DmirrorDriver } from "./driver.ts";
