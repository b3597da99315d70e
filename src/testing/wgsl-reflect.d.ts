// The package's main file is CommonJS under "type": "module", which Node cannot import; this one works everywhere.
declare module "wgsl_reflect/wgsl_reflect.module.js" {
  export * from "wgsl_reflect";
}
