/** What random programs of svm mode do, computed on the CPU. */
import {
  EXCHANGED,
  type Expression,
  type Flow,
  GROUP,
  howToLeave,
  isCollective,
  OWN_WORDS,
  type ProgramMemory,
  type Statement,
  takenWords,
  VARIABLES,
} from "./svm-program.ts";

/** Runs all invocations of the program on `words`. Returns how many words one of them stored at most. */
export function runOnCpu(
  statements: readonly Statement[],
  memory: ProgramMemory,
  words: Uint32Array,
  invocations: number,
): number {
  const together = isCollective(statements);
  const taken = takenWords(statements);
  let most = 0;
  for (let first = 0; first < invocations; first += GROUP) {
    const group = Array.from(
      { length: GROUP },
      (_, lane) => new Invocation(memory, words, first + lane, { together, taken }),
    );
    let from = 0;
    while (from < statements.length) {
      const next = statements.findIndex((s, i) => i >= from && s.kind === "exchange");
      const end = next < 0 ? statements.length : next;
      for (const one of group) {
        one.run(statements.slice(from, end));
      }
      const s = statements[end];
      if (s?.kind === "exchange") {
        const others = group.map((_, lane) => group[(lane + s.by) % GROUP]);
        // Nobody stores in between: all see what was there.
        const values = group.map(({ v }, lane) =>
          s.how === "register" ? others[lane].v[s.index] : others[lane].ownWord(v[s.index] % EXCHANGED),
        );
        group.forEach(({ v }, lane) => {
          if (s.how === "take") {
            others[lane].setOwnWord(v[s.index] % EXCHANGED, values[lane] + v[(s.index + 1) % VARIABLES]);
          }
        });
        group.forEach((one, lane) => {
          one.v[s.index] = values[lane];
        });
      }
      from = end + 1;
    }
    for (const one of group) {
      one.end();
      most = Math.max(most, one.stores);
    }
  }
  return most;
}

/** What the whole program says of each statement. */
interface Rules {
  readonly together: boolean;
  readonly taken: number;
}

class Invocation {
  readonly v = new Uint32Array(VARIABLES).map((_, i) => i);
  stores = 0;
  #left = false;
  readonly run: (list: readonly Statement[]) => void;
  readonly end: () => void;
  readonly ownWord: (at: number) => number;
  readonly setOwnWord: (at: number, value: number) => void;

  constructor(memory: ProgramMemory, words: Uint32Array, id: number, rules: Rules) {
    const { run, end, ownWord, setOwnWord } = interpreter(this, memory, words, id, rules);
    this.run = (list) => {
      this.#left ||= run(list);
    };
    this.end = () => {
      if (!this.#left) {
        end();
      }
    };
    this.ownWord = ownWord;
    this.setOwnWord = setOwnWord;
  }
}

function interpreter(
  one: { readonly v: Uint32Array; stores: number },
  memory: ProgramMemory,
  words: Uint32Array,
  id: number,
  { together, taken }: Rules,
) {
  const { v } = one;
  const word = (at: number) => words[at] ?? 0;
  const base = memory.own + id * OWN_WORDS;
  const shared = (e: Expression, less: number) => memory.shared + (ex(e) % (memory.sharedWords - less));
  const ex = (e: Expression): number => {
    switch (e.kind) {
      case "number":
        return e.value;
      case "variable":
        return v[e.index] ?? 0;
      case "id":
        return id;
      case "binary":
        return binary(e.op, ex(e.a), ex(e.b));
      case "own":
        return word(base + (ex(e.at) % OWN_WORDS));
      case "shared":
        return word(shared(e.at, 0));
      case "vector": {
        const at = shared(e.at, 3);
        return (word(at) ^ Math.imul(word(at + 1), 3) ^ Math.imul(word(at + 2), 5) ^ Math.imul(word(at + 3), 7)) >>> 0;
      }
      case "span": {
        const at = shared(e.at, 8);
        const length = Math.min(8, 4096 - (at % 4096));
        return word(at + (ex(e.i) % length));
      }
      case "helper": {
        const at = shared(e.at, 2);
        return word(at) % 2 === 0 ? word(at) : (word(at) + word(at + 1)) >>> 0;
      }
      default:
        return e satisfies never;
    }
  };
  const store = (at: number, value: number) => {
    words[at] = value;
    one.stores++;
  };
  const walk = (a: number, turns: number): number => {
    let sum = a;
    let way = [turns, 1];
    const seen = [1, 2, 3];
    for (let i = 0; i < turns; i++) {
      const x = word(memory.shared + (sum % memory.sharedWords));
      seen[i % 3] = x;
      sum = (sum + x + (way[1] ?? 0)) >>> 0;
      way = [way[1] ?? 0, way[0] ?? 0];
      if (x % 16 === 5) {
        return sum;
      }
    }
    return (sum ^ (seen[0] ?? 0) ^ (seen[2] ?? 0)) >>> 0;
  };
  const block = (list: readonly Statement[], inLoop: boolean): Flow => {
    for (const s of list) {
      const flow = st(s, inLoop);
      if (flow !== "go") {
        return flow;
      }
    }
    return "go";
  };
  const st = (s: Statement, inLoop: boolean): Flow => {
    switch (s.kind) {
      case "set":
        v[s.index] = ex(s.value);
        return "go";
      case "store": {
        const at = base + (ex(s.at) % OWN_WORDS);
        store(at, ex(s.value));
        return "go";
      }
      case "storeVector": {
        const x = ex(s.value);
        const at = base + (ex(s.at) % (OWN_WORDS - 3));
        [x, x + 1, Math.imul(x, 3), v[0] ?? 0].forEach((value, k) => {
          store(at + k, value);
        });
        return "go";
      }
      case "add": {
        const at = memory.bins + (ex(s.bin) % memory.binCount);
        store(at, word(at) + ex(s.value));
        return "go";
      }
      case "take": {
        const at = base + (ex(s.at) % taken);
        const compare = v[s.index];
        const value = ex(s.value);
        const old = word(at);
        const after = {
          add: old + value,
          exchange: value,
          max: Math.max(old, value),
          compare_exchange: old === compare ? value : old,
        };
        store(at, after[s.op]);
        v[s.index] = old;
        return "go";
      }
      case "spin":
        ex(s.at);
        return "go";
      case "exchange":
        return "go";
      case "walk":
        v[s.index] = walk(ex(s.at), ex(s.turns) % 9);
        return "go";
      case "bump":
        v[s.index] = Math.imul(v[s.index] ?? 0, 2) + ex(s.value);
        return "go";
      case "choose": {
        const list = s.cases[ex(s.value) % 3];
        if (list === undefined) {
          v[0] = (v[0] ?? 0) + 7;
          return "go";
        }
        const flow = block(list, inLoop);
        return flow === "break" ? "go" : flow;
      }
      case "if":
        return block(ex(s.condition) % 2 === 1 ? s.yes : s.no, inLoop);
      case "loop": {
        const turns = ex(s.turns) % 7;
        for (let n = 0; n < turns; n++) {
          const flow = block(s.body, true);
          if (flow === "return") {
            return flow;
          }
          if (flow === "break") {
            break;
          }
        }
        return "go";
      }
      case "leave":
        return (inLoop || !together) && ex(s.condition) % 3 === 1 ? howToLeave(s.how, inLoop, together) : "go";
      default:
        return s satisfies never;
    }
  };
  return {
    /** True when it has left. */
    run: (list: readonly Statement[]) => block(list, false) === "return",
    end: () => store(base, (v[0] ?? 0) + Math.imul(v[1] ?? 0, 3) + Math.imul(v[2] ?? 0, 5)),
    ownWord: (at: number) => word(base + at),
    setOwnWord: (at: number, value: number) => {
      words[base + at] = value;
    },
  };
}

function binary(op: "+" | "-" | "*" | "^" | "&" | "|", a: number, b: number): number {
  switch (op) {
    case "+":
      return (a + b) >>> 0;
    case "-":
      return (a - b) >>> 0;
    case "*":
      return Math.imul(a, b) >>> 0;
    case "^":
      return (a ^ b) >>> 0;
    case "&":
      return (a & b) >>> 0;
    case "|":
      return (a | b) >>> 0;
    default:
      return op satisfies never;
  }
}
