export { MigrateDeviceRange } from "./migrate-device.ts";
export { MigrateSelect, MigrateVma, type MigrateVmaArgs } from "./migrate-pages.ts";
export {
  type Migration,
  type MigrationSetup,
  migrateVmaAbort,
  migrateVmaFinalize,
  migrateVmaSetup,
  migrateVmaTrySetup,
} from "./migrate-vma.ts";
export {
  MIGRATE_PFN_MIGRATE,
  MIGRATE_PFN_VALID,
  MIGRATE_PFN_WRITE,
  type MigratingPages,
  migratePfn,
  migratePfnToPfn,
} from "./migrating-pages.ts";
