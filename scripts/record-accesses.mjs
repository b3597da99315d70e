/**
 * Makes code tell which objects it reads and writes, for the explorer's partial-order reduction: `a.b` becomes
 * `__access(a, "b", …).b`, with how it is touched; a call `__call(a, "m").m(…)`, and what is iterated over `__iterate(a)`. Keys
 * and indices are told one by one: `a[i]` becomes `__keyed(a)[__key(i, …)]`. What makes an object says so: `__make({…})`.
 * Variables that closures share have an object each that stands for them, made where they are declared.
 */
import MagicString from "magic-string";
import { parseAst } from "rolldown/parseAst";
import { sharedVariables } from "./shared-variables.mjs";

/** How a place is touched: the masks of src/check/access.ts. */
const READ = 2;
const UPDATE = 4;
const WRITE = 8;

/** Methods of maps and sets whose first argument says what they touch. */
const KEYED = new Set(["get", "has", "set", "add", "delete"]);
/** Methods that make a collection. */
const MAKERS = new Set(
  "slice subarray map filter flatMap flat concat from of toSorted toSpliced toReversed with splice entries keys values fill withResolvers".split(
    " ",
  ),
);

const nameOf = (member) =>
  member.computed
    ? "*"
    : member.property.type === "PrivateIdentifier"
      ? `#${member.property.name}`
      : member.property.name;

/** Whether the chain that ends here may have ended earlier, at a `?.`. */
const isCutShort = (node) =>
  (node.type === "MemberExpression" || node.type === "CallExpression") &&
  (node.optional || isCutShort(node.type === "MemberExpression" ? node.object : node.callee));

/** A property of something that can be named twice, so that its value can be told. */
const isPlain = (node) =>
  node.type === "MemberExpression" &&
  !node.computed &&
  !node.optional &&
  (node.object.type === "ThisExpression" || node.object.type === "Identifier");

/** Whether a loop's body waits, and the loop goes on in another step. */
const waits = (node) => {
  if (Array.isArray(node)) {
    return node.some(waits);
  }
  if (typeof node?.type !== "string" || /Function/.test(node.type)) {
    return false;
  }
  return /^(Await|Yield)Expression$/.test(node.type) || Object.values(node).some(waits);
};

const NOTHING_SHARED = { before: new Map(), references: new Map() };

const isZero = (node) => node.type === "Literal" && node.value === 0;

/**
 * @param {string} code JavaScript of one module
 * @param {{ aside?: boolean }} options `aside`: the module only watches; it tells which objects are its own
 * @returns {string}
 */
export function recordAccesses(code, { aside = false } = {}) {
  const text = new MagicString(code);
  let patterns = 0;
  const wrap = (node, helper, ...args) => {
    if (aside && helper !== "__make") {
      return;
    }
    text.appendLeft(node.start, `${aside ? "__aside" : helper}(`);
    text.prependRight(node.end, `${args.map((arg) => `, ${JSON.stringify(arg)}`).join("")})`);
  };
  /** Takes a pattern out of a place where nothing can be told of it; gives the declaration to put where it can. */
  const takeOut = (pattern, keyword) => {
    const name = `__pattern${patterns++}`;
    const keys = pattern.properties.map(({ key }) => JSON.stringify(key?.name ?? "*"));
    const value = keys.reduce((inner, key) => `__access(${inner}, ${key}, ${READ})`, name);
    const declared = `${keyword} ${code.slice(pattern.start, pattern.end)} = ${value}; `;
    text.overwrite(pattern.start, pattern.end, name);
    return declared;
  };
  /** A count that goes up or down, or is only asked whether it is 0. */
  const visitCount = (member, delta, tested) => {
    const value = code.slice(member.start, member.end);
    text.appendLeft(member.object.start, aside ? "" : "__count(");
    text.prependRight(
      member.object.end,
      aside ? "" : `, ${JSON.stringify(nameOf(member))}, ${delta}, ${tested}, ${value})`,
    );
  };
  const deltaOf = (update) => (update.operator === "++" ? 1 : -1);
  const visitMember = (node, mask) => {
    if (node.object.type === "Super" || node.object.type === "MetaProperty") {
      visit(node.object);
    } else if (node.computed && !node.optional && !isCutShort(node.object)) {
      wrap(node.object, "__keyed");
      visit(node.object);
      wrap(node.property, "__key", mask);
    } else {
      wrap(node.object, "__access", nameOf(node), mask);
      if (!node.optional && isCutShort(node.object) && !aside) {
        // What follows a `?.` is skipped with it, and the call around its object would end that.
        const dot = node.computed ? node.object.end : code.indexOf(".", node.object.end);
        text.appendRight(dot, node.computed ? "?." : "?");
      }
      visit(node.object);
    }
    if (node.computed) {
      visit(node.property);
    }
  };
  const visitCall = (node) => {
    const { callee } = node;
    if (callee.type !== "MemberExpression" || callee.computed || callee.object.type === "Super") {
      visit(callee);
    } else {
      const method = nameOf(callee);
      const [first] = node.arguments;
      if (MAKERS.has(method) && !isCutShort(node)) {
        wrap(node, "__make");
      }
      if (
        KEYED.has(method) &&
        first !== undefined &&
        first.type !== "SpreadElement" &&
        !callee.optional &&
        !isCutShort(callee)
      ) {
        wrap(callee.object, "__keyed", method);
        wrap(first, "__key", WRITE);
      } else {
        wrap(callee.object, "__call", method);
        if (!callee.optional && isCutShort(callee.object) && !aside) {
          text.appendRight(code.indexOf(".", callee.object.end), "?");
        }
      }
      visit(callee.object);
    }
    visit(node.arguments);
  };
  const visitFunction = (node) => {
    let declared = "";
    for (const param of node.params) {
      const pattern = param.type === "AssignmentPattern" ? param.left : param;
      if (pattern.type === "ObjectPattern" && !aside) {
        declared += takeOut(pattern, "let");
        visit(param.type === "AssignmentPattern" ? param.right : null);
      } else {
        visit(param);
      }
    }
    if (declared !== "" && node.body.type !== "BlockStatement") {
      // Around the parentheses that the body may be in.
      text.appendLeft(code.lastIndexOf("=>", node.body.start) + 2, `{ ${declared}return `);
      text.appendRight(node.end, "; }");
    } else if (declared !== "") {
      text.appendRight(node.body.start + 1, ` ${declared}`);
    }
    visit(node.body);
  };
  /** An expression that reads or changes a variable. */
  const visitVariable = (node, { box, name }, mask) => {
    text.appendLeft(node.start, `(__access(${box}, ${JSON.stringify(name)}, ${mask}), `);
    text.prependRight(node.end, ")");
  };
  const visit = (node, mask = READ) => {
    if (node === null || typeof node !== "object") {
      return;
    }
    if (Array.isArray(node)) {
      node.forEach((child) => void visit(child));
      return;
    }
    if (typeof node.type !== "string") {
      return;
    }
    const boxes = shared.before.get(node);
    if (boxes !== undefined) {
      text.appendLeft(node.start, boxes.map((box) => `const ${box} = __make({}); `).join(""));
    }
    const variable = shared.references.get(node.left ?? node.argument ?? node);
    switch (node.type) {
      case "MemberExpression":
        visitMember(node, mask);
        return;
      case "Identifier":
        if (variable !== undefined) {
          visitVariable(node, variable, READ);
        }
        return;
      case "Property":
        if (node.shorthand && shared.references.has(node.value)) {
          text.appendLeft(node.start, `${node.value.name}: `);
          visit(node.value);
          return;
        }
        break;
      case "AssignmentExpression":
        if (node.left.type.endsWith("Pattern")) {
          throw new Error(`${code.slice(node.start, node.end)}: assign one by one, so that each can be recorded`);
        }
        if (variable !== undefined) {
          visitVariable(node, variable, node.operator === "=" ? WRITE : READ | WRITE);
          visit(node.right);
          return;
        }
        visit(node.left, node.operator === "=" ? WRITE : READ | WRITE);
        visit(node.right);
        return;
      case "ExpressionStatement":
        // Whoever only counts does not see where the count stands.
        visit(node.expression, node.expression.type === "UpdateExpression" ? UPDATE : READ);
        return;
      case "UpdateExpression":
        if (variable !== undefined) {
          visitVariable(node, variable, mask === UPDATE ? UPDATE : READ | WRITE);
          return;
        }
        if (mask === UPDATE && isPlain(node.argument)) {
          visitCount(node.argument, deltaOf(node), false);
        } else {
          visit(node.argument, mask === UPDATE ? UPDATE : READ | WRITE);
        }
        return;
      case "BinaryExpression":
        if (["===", "!==", ">", "<="].includes(node.operator) && isZero(node.right)) {
          const { left } = node;
          if (isPlain(left)) {
            visitCount(left, 0, true);
            return;
          }
          if (left.type === "UpdateExpression" && left.prefix && isPlain(left.argument)) {
            visitCount(left.argument, deltaOf(left), true);
            return;
          }
        }
        break;
      case "UnaryExpression":
        visit(node.argument, node.operator === "delete" ? WRITE : READ);
        return;
      case "CallExpression":
        visitCall(node);
        return;
      case "ObjectExpression":
      case "ArrayExpression":
      case "NewExpression":
        wrap(node, "__make");
        break;
      case "ChainExpression":
        visit(node.expression, mask);
        return;
      case "FunctionDeclaration":
      case "FunctionExpression":
      case "ArrowFunctionExpression":
        visitFunction(node);
        return;
      case "ForOfStatement": {
        const pattern = node.left.declarations?.[0].id;
        if (pattern?.type === "ObjectPattern" && !aside) {
          text.appendRight(node.body.start + 1, ` ${takeOut(pattern, node.left.kind)}`);
        } else {
          visit(node.left);
        }
        wrap(node.right, waits(node.body) ? "__walk" : "__iterate");
        visit(node.right);
        visit(node.body);
        return;
      }
      case "SpreadElement":
        wrap(node.argument, "__iterate");
        visit(node.argument);
        return;
      case "VariableDeclarator":
        visit(node.id);
        if (node.init !== null && node.id.type === "ObjectPattern") {
          for (const property of node.id.properties) {
            if (property.value?.type === "ObjectPattern") {
              throw new Error(`${code.slice(node.start, node.end)}: take one level out, so that it can be recorded`);
            }
            wrap(node.init, "__access", property.key?.name ?? "*", READ);
          }
        } else if (node.init !== null && node.id.type === "ArrayPattern") {
          wrap(node.init, "__iterate");
        }
        visit(node.init);
        return;
      case "ImportDeclaration":
      case "ExportAllDeclaration":
        return;
      default:
    }
    for (const [key, child] of Object.entries(node)) {
      if (key !== "type" && key !== "start" && key !== "end") {
        visit(child);
      }
    }
  };
  const program = parseAst(code);
  const shared = aside ? NOTHING_SHARED : sharedVariables(program);
  visit(program.body);
  return text.toString();
}
