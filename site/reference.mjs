/** The reference: what each export of the package's manifest exports, with its docstrings. */
import path from "node:path";
import { Application, ReflectionKind } from "typedoc";

/** Writes Markdown for the manifest's exports. Returns whether all could be read. */
export async function writeReference({ root, name, exports, out }) {
  const entries = Object.entries(exports)
    .filter(([, target]) => target.types !== undefined)
    .map(([subpath, { types }]) => ({
      source: path.join(root, types.replace(/^\.\/dist\//, "src/").replace(/\.d\.ts$/, ".ts")),
      module: path.posix.join(name, subpath),
    }))
    // A symbol's page is in the first module that exports it: those that export all of the package come last.
    .sort((a, b) => Number(exportsAll(a, name)) - Number(exportsAll(b, name)));
  const app = await Application.bootstrapWithPlugins({
    out,
    // It would empty the folder, whatever it is.
    cleanOutputDir: false,
    entryPoints: entries.map(({ source }) => source),
    tsconfig: path.join(root, "tsconfig.json"),
    plugin: ["typedoc-plugin-markdown"],
    // The project's own type check is another step, with another compiler.
    skipErrorChecking: true,
    excludeInternal: true,
    excludePrivate: true,
    disableSources: true,
    sort: ["kind", "alphabetical"],
    readme: "none",
    blockTags: ["@linux", "@param", "@returns", "@throws", "@see"],
    validation: false,
    outputFileStrategy: "members",
    entryFileName: "index",
    hidePageHeader: true,
    hideBreadcrumbs: true,
    useCodeBlocks: true,
    expandObjects: true,
    parametersFormat: "table",
    interfacePropertiesFormat: "table",
    classPropertiesFormat: "table",
    typeDeclarationFormat: "table",
    logLevel: "Error",
  });
  const modules = new Map(entries.map(({ source, module }) => [source, module]));
  app.converter.on("createDeclaration", (context, reflection) => {
    if (reflection.kindOf(ReflectionKind.Module)) {
      const file = context.getSymbolFromReflection(reflection)?.declarations?.[0]?.getSourceFile().fileName;
      reflection.name = modules.get(file) ?? reflection.name;
    }
  });
  const project = await app.convert();
  if (project === undefined || app.logger.hasErrors()) {
    return false;
  }
  project.name = "Reference";
  await app.generateOutputs(project);
  return !app.logger.hasErrors();
}

const exportsAll = ({ module }, name) => [name, `${name}/node`, `${name}/browser`].includes(module);
