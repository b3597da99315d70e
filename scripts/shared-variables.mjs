/**
 * Variables that a closure shares with its makers: those that some function reads or writes which did not declare them, and
 * that change after their declaration. Tasks may meet in them as they do in properties of objects.
 */

const isFunction = (node) => /Function/.test(node.type);

/** Names that a pattern declares. */
function namesIn(pattern) {
  switch (pattern?.type) {
    case "Identifier":
      return [pattern.name];
    case "ObjectPattern":
      return pattern.properties.flatMap((property) => namesIn(property.value ?? property.argument));
    case "ArrayPattern":
      return pattern.elements.flatMap(namesIn);
    case "AssignmentPattern":
      return namesIn(pattern.left);
    case "RestElement":
      return namesIn(pattern.argument);
    default:
      return [];
  }
}

/**
 * @param {object} program the AST of a module
 * @returns {{ before: Map<object, string[]>, references: Map<object, { box: string, name: string }> }} `before`: the statements
 *   in front of which the variables' boxes are made; `references`: their identifiers, but for where they are declared
 */
export function sharedVariables(program) {
  const found = [];
  const declare = (scope, pattern, kind, fn, statement) => {
    for (const name of namesIn(pattern)) {
      const variable = { name, kind, fn, statement, written: false, shared: false, references: [] };
      scope.names.set(name, variable);
      found.push(variable);
    }
  };
  const lookUp = (scope, name) => {
    for (let at = scope; at !== undefined; at = at.outer) {
      const variable = at.names.get(name);
      if (variable !== undefined) {
        return variable;
      }
    }
    return undefined;
  };
  const refer = (node, scope, fn, writes) => {
    const variable = lookUp(scope, node.name);
    if (variable !== undefined) {
      variable.written ||= writes;
      variable.shared ||= variable.fn !== fn;
      variable.references.push(node);
    }
  };
  /** What a list of statements declares, `let` and functions, before anything of it is walked. */
  const declareAll = (statements, scope, fn) => {
    for (const statement of statements) {
      const declaration = statement.declaration ?? statement;
      if (declaration.type === "VariableDeclaration") {
        for (const { id } of declaration.declarations) {
          declare(scope, id, declaration.kind, fn, statement);
        }
      } else if (declaration.type === "FunctionDeclaration" || declaration.type === "ClassDeclaration") {
        declare(scope, declaration.id, "const", fn, statement);
      }
    }
  };
  const walkList = (statements, outer, fn) => {
    const scope = { outer, names: new Map() };
    declareAll(statements, scope, fn);
    for (const statement of statements) {
      walk(statement, scope, fn, statement);
    }
  };
  const walkFunction = (node, outer, statement) => {
    const scope = { outer, names: new Map() };
    for (const param of node.params) {
      declare(scope, param, "param", node, undefined);
    }
    for (const param of node.params) {
      walk(param, scope, node, statement);
    }
    if (node.body?.type === "BlockStatement") {
      walkList(node.body.body, scope, node);
    } else {
      walk(node.body, scope, node, statement);
    }
  };
  const walkLoop = (node, outer, fn, statement) => {
    const scope = { outer, names: new Map() };
    for (const head of [node.init, node.left]) {
      if (head?.type === "VariableDeclaration") {
        for (const { id } of head.declarations) {
          declare(scope, id, head.kind, fn, statement);
        }
      }
    }
    walkChildren(node, scope, fn, statement);
  };
  const walkChildren = (node, scope, fn, statement) => {
    for (const [key, child] of Object.entries(node)) {
      const isName =
        ((key === "key" || key === "property") && !node.computed) || key === "label" || /Specifier$/.test(node.type);
      if (key !== "type" && key !== "start" && key !== "end" && !isName) {
        walk(child, scope, fn, statement);
      }
    }
  };
  const walk = (node, scope, fn, statement) => {
    if (Array.isArray(node)) {
      for (const child of node) {
        walk(child, scope, fn, statement);
      }
    } else if (typeof node?.type !== "string") {
      return;
    } else if (isFunction(node)) {
      walkFunction(node, scope, statement);
    } else if (node.type === "BlockStatement" || node.type === "StaticBlock" || node.type === "Program") {
      walkList(node.body, scope, node.type === "StaticBlock" ? node : fn);
    } else if (/^For.*Statement$/.test(node.type)) {
      walkLoop(node, scope, fn, statement);
    } else if (node.type === "SwitchCase") {
      walk(node.test, scope, fn, statement);
      walkList(node.consequent, scope, fn);
    } else if (node.type === "VariableDeclarator") {
      walk(node.init, scope, fn, statement);
      if (node.id.type !== "Identifier") {
        walkDefaults(node.id, scope, fn, statement);
      }
    } else if (node.type === "AssignmentExpression" || node.type === "UpdateExpression") {
      const target = node.left ?? node.argument;
      if (target.type === "Identifier") {
        refer(target, scope, fn, true);
      } else {
        walk(target, scope, fn, statement);
      }
      walk(node.right, scope, fn, statement);
    } else if (node.type === "PropertyDefinition") {
      // An initializer runs in the constructor.
      walk(node.computed ? node.key : null, scope, fn, statement);
      walk(node.value, scope, node, statement);
    } else if (node.type === "Identifier") {
      refer(node, scope, fn, false);
    } else {
      walkChildren(node, scope, fn, statement);
    }
  };
  /** In a pattern that declares, only defaults refer to anything. */
  const walkDefaults = (pattern, scope, fn, statement) => {
    if (pattern?.type === "AssignmentPattern") {
      walk(pattern.right, scope, fn, statement);
      walkDefaults(pattern.left, scope, fn, statement);
    }
    for (const part of pattern?.properties ?? pattern?.elements ?? []) {
      walkDefaults(part?.value ?? part, scope, fn, statement);
    }
  };
  walk(program, undefined, program, undefined);

  const before = new Map();
  const references = new Map();
  for (const [i, { name, kind, statement, written, shared, references: all }] of found.entries()) {
    if (kind !== "const" && written && shared) {
      if (statement === undefined) {
        throw new Error(`the parameter ${name} is changed and shared by closures: use a variable of its own`);
      }
      const box = `__variable${i}`;
      before.set(statement, [...(before.get(statement) ?? []), box]);
      for (const node of all) {
        references.set(node, { box, name });
      }
    }
  }
  return { before, references };
}
