export {
  type Migration,
  type MigrationSetup,
  migrateVmaAbort,
  migrateVmaFinalize,
  migrateVmaSetup,
  migrationBytes,
} from "./migrate-vma.ts";
