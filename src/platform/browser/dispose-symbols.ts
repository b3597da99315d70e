/**
 * Browsers that have WebGPU and no explicit resource management yet get the two symbols: classes name their methods by
 * them when they are defined, so this module stands first.
 */
for (const name of ["dispose", "asyncDispose"] as const) {
  if (Symbol[name] === undefined) {
    Object.defineProperty(Symbol, name, { value: Symbol(`Symbol.${name}`) });
  }
}
