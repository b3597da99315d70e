/** Which local declaration each name of a function means. */
import type {
  BlockElem,
  ConstElem,
  ExpressionElem,
  FnElem,
  FnParamElem,
  LetElem,
  RefIdentElem,
  Statement,
  VarElem,
} from "wesl";
import { concrete, namedType, type TypeOfName, typeOf, type WgslType } from "./infer-type.ts";
import { everything, type ParsedKernel } from "./parse-kernel.ts";

/** A declaration inside a function. */
export interface Binding {
  readonly name: string;
  readonly element: VarElem | LetElem | ConstElem | FnParamElem;
  readonly type: WgslType | undefined;
  /** A pointer to it is made somewhere. */
  isAddressed: boolean;
  /** Where its value is kept from one run to the next, once that is decided. */
  home: string | undefined;
}

/** The local names of a function. */
export interface FunctionScopes {
  readonly ofName: ReadonlyMap<RefIdentElem, Binding>;
  readonly ofDeclaration: ReadonlyMap<Binding["element"], Binding>;
  readonly typeOfName: TypeOfName;
}

export function resolveFunction(kernel: ParsedKernel, fn: FnElem): FunctionScopes {
  return new Resolver(kernel).run(fn);
}

/** What a module-scope variable or constant is. */
export function globalType(kernel: ParsedKernel, name: string): WgslType | undefined {
  for (const decl of kernel.module.decls) {
    if (
      (decl.kind === "gvar" || decl.kind === "const" || decl.kind === "override") &&
      decl.name.decl.ident.originalName === name
    ) {
      return declaredType(kernel, decl, (ref) => globalType(kernel, ref.ident.originalName));
    }
  }
  return undefined;
}

function declaredType(
  kernel: ParsedKernel,
  decl: { readonly kind: string; readonly name: VarElem["name"]; readonly init?: ExpressionElem },
  nameOf: TypeOfName,
): WgslType | undefined {
  if (decl.name.typeRef !== undefined) {
    return namedType(kernel, decl.name.typeRef);
  }
  const type = decl.init === undefined ? undefined : typeOf(kernel, decl.init, nameOf);
  // Constants stay abstract.
  return decl.kind === "const" ? type : concrete(type);
}

class Resolver {
  readonly #kernel: ParsedKernel;
  readonly #scopes: Map<string, Binding>[] = [];
  readonly #ofName = new Map<RefIdentElem, Binding>();
  readonly #ofDeclaration = new Map<Binding["element"], Binding>();
  readonly #typeOfName: TypeOfName = (ref) => {
    const binding = this.#ofName.get(ref) ?? this.#find(ref.ident.originalName);
    return binding === undefined ? globalType(this.#kernel, ref.ident.originalName) : binding.type;
  };

  constructor(kernel: ParsedKernel) {
    this.#kernel = kernel;
  }

  run(fn: FnElem): FunctionScopes {
    this.#within(() => {
      for (const param of fn.params) {
        const type = param.name.typeRef;
        this.#add(param, type === undefined ? undefined : namedType(this.#kernel, type));
      }
      this.#statements(fn.body.body);
    });
    return { ofName: this.#ofName, ofDeclaration: this.#ofDeclaration, typeOfName: this.#typeOfName };
  }

  #within(visit: () => void): void {
    this.#scopes.push(new Map());
    visit();
    this.#scopes.pop();
  }

  #find(name: string): Binding | undefined {
    for (let i = this.#scopes.length - 1; i >= 0; i--) {
      const binding = this.#scopes[i].get(name);
      if (binding !== undefined) {
        return binding;
      }
    }
    return undefined;
  }

  #add(element: Binding["element"], type: WgslType | undefined): void {
    const name = element.name.decl.ident.originalName;
    const binding: Binding = { name, element, type, isAddressed: false, home: undefined };
    this.#scopes.at(-1)?.set(name, binding);
    this.#ofDeclaration.set(element, binding);
  }

  #block(block: BlockElem): void {
    this.#within(() => this.#statements(block.body));
  }

  #statements(list: readonly Statement[]): void {
    for (const statement of list) {
      this.#statement(statement);
    }
  }

  #statement(s: Statement): void {
    switch (s.kind) {
      case "block":
        this.#block(s);
        break;
      case "if":
        this.#names(s.condition);
        this.#block(s.body);
        if (s.else !== undefined) {
          this.#statement(s.else);
        }
        break;
      case "for":
        this.#within(() => {
          for (const part of [s.init, s.condition, s.update]) {
            if (part !== undefined) {
              this.#part(part);
            }
          }
          this.#block(s.body);
        });
        break;
      case "while":
        this.#names(s.condition);
        this.#block(s.body);
        break;
      case "loop":
      case "continuing":
        this.#block(s.body);
        break;
      case "switch":
        this.#names(s.selector);
        for (const clause of s.clauses) {
          for (const selector of clause.selectors) {
            if (selector !== "default") {
              this.#names(selector);
            }
          }
          this.#block(clause.body);
        }
        break;
      default:
        this.#part(s);
    }
  }

  /** A statement without others in it, or an expression. */
  #part(elem: Statement | ExpressionElem): void {
    this.#names(elem);
    if (elem.kind === "var" || elem.kind === "let" || elem.kind === "const") {
      this.#add(elem, declaredType(this.#kernel, elem, this.#typeOfName));
    }
  }

  #names(elem: Statement | ExpressionElem): void {
    for (const inner of everything(elem)) {
      if (inner.kind === "ref") {
        const binding = this.#find(inner.ident.originalName);
        if (binding !== undefined) {
          this.#ofName.set(inner, binding);
        }
      } else if (inner.kind === "unary-expression" && inner.operator.value === "&") {
        const root = rootOf(inner.expression);
        const binding = root === undefined ? undefined : this.#find(root.ident.originalName);
        if (binding !== undefined) {
          binding.isAddressed = true;
        }
      }
    }
  }
}

/** The variable of which an expression names a part. */
export function rootOf(e: ExpressionElem): RefIdentElem | undefined {
  switch (e.kind) {
    case "ref":
      return e;
    case "parenthesized-expression":
      return rootOf(e.expression);
    case "component-expression":
    case "component-member-expression":
      return rootOf(e.base);
    default:
      return undefined;
  }
}
