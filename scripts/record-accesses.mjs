/**
 * Makes code tell which objects it reads and writes, for the explorer's partial-order reduction: `a.b` becomes
 * `__read(a, "b").b`, a store `__write(a, "b").b = …`, a call `__call(a, "m").m(…)`, and what is iterated over
 * `__iterate(a)`. Variables that closures share are not seen.
 */
import MagicString from "magic-string";
import { parseAst } from "rolldown/parseAst";

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

/** @param {string} code JavaScript of one module @returns {string} */
export function recordAccesses(code) {
  const text = new MagicString(code);
  const wrap = (node, helper, key) => {
    text.appendLeft(node.start, `${helper}(`);
    text.prependRight(node.end, key === undefined ? ")" : `, ${JSON.stringify(key)})`);
  };
  const visit = (node, role) => {
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
    if (node.type === "MemberExpression") {
      if (node.object.type !== "Super" && node.object.type !== "MetaProperty") {
        wrap(node.object, role ?? "__read", nameOf(node));
        if (!node.optional && isCutShort(node.object)) {
          // What follows a `?.` is skipped with it, and the call around its object would end that.
          const dot = node.computed ? node.object.end : code.indexOf(".", node.object.end);
          text.appendRight(dot, node.computed ? "?." : "?");
        }
      }
      visit(node.object);
      if (node.computed) {
        visit(node.property);
      }
      return;
    }
    switch (node.type) {
      case "AssignmentExpression":
        visit(node.left, "__write");
        visit(node.right);
        return;
      case "UpdateExpression":
        visit(node.argument, "__write");
        return;
      case "UnaryExpression":
        visit(node.argument, node.operator === "delete" ? "__write" : undefined);
        return;
      case "CallExpression":
        visit(node.callee, "__call");
        visit(node.arguments);
        return;
      case "ChainExpression":
        visit(node.expression, role);
        return;
      case "ForOfStatement":
        visit(node.left);
        wrap(node.right, "__iterate");
        visit(node.right);
        visit(node.body);
        return;
      case "SpreadElement":
        wrap(node.argument, "__iterate");
        visit(node.argument);
        return;
      case "VariableDeclarator":
        visit(node.id);
        if (node.init !== null && node.id.type === "ObjectPattern") {
          for (const property of node.id.properties) {
            wrap(node.init, "__read", property.key?.name ?? "*");
          }
        }
        visit(node.init);
        return;
      case "ImportDeclaration":
      case "ExportAllDeclaration":
        return;
      default:
        for (const [key, child] of Object.entries(node)) {
          if (key !== "type" && key !== "start" && key !== "end") {
            visit(child);
          }
        }
    }
  };
  visit(parseAst(code).body);
  return text.toString();
}
