export {
  type Migration,
  type MigrationSetup,
  migrateVmaAbort,
  migrateVmaFinalize,
  migrateVmaSetup,
  migrateVmaTrySetup,
  migrationBytes,
} from "./migrate-vma.ts";
