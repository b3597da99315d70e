/** Random programs as kernels of svm mode. */
import {
  EXCHANGED,
  type Expression,
  GROUP,
  howToLeave,
  isCollective,
  OWN_WORDS,
  type ProgramMemory,
  type ProgramShape,
  type Statement,
  THERE,
  takenWords,
  VARIABLES,
} from "./svm-program.ts";

/**
 * The program as a kernel. `leave` statements outside a loop return; where workgroups do something together nobody returns
 * early, and they leave a loop at most.
 */
export function toWgsl(statements: readonly Statement[], memory: ProgramMemory, shape: ProgramShape): string {
  let loops = 0;
  const together = isCollective(statements);
  const taken = takenWords(statements);
  const ownOf = (id: string, at: string) => `(${memory.own}u + ${id} * ${OWN_WORDS}u + (${at}) % ${OWN_WORDS}u)`;
  const own = (at: string) => ownOf("id.x", at);
  const ownVector = (at: string) => `(${memory.own}u + id.x * ${OWN_WORDS}u + (${at}) % ${OWN_WORDS - 3}u)`;
  const shared = (at: string, words: number) => `(${memory.shared}u + (${at}) % ${memory.sharedWords - words}u)`;
  const ex = (e: Expression): string => {
    switch (e.kind) {
      case "number":
        return `${e.value}u`;
      case "variable":
        return `v${e.index}`;
      case "id":
        return "id.x";
      case "binary":
        return `(${ex(e.a)} ${e.op} ${ex(e.b)})`;
      case "own":
        return `pm_load_u32(${own(ex(e.at))})`;
      case "shared":
        return `pm_load_u32(${shared(ex(e.at), 0)})`;
      case "vector":
        return `fold(pm_load_vec4u(${shared(ex(e.at), 3)}))`;
      case "span":
        return `within(${shared(ex(e.at), 8)}, ${ex(e.i)})`;
      case "helper":
        return `helper(${shared(ex(e.at), 2)})`;
      default:
        return e satisfies never;
    }
  };
  const all = (list: readonly Statement[], inLoop: boolean): string => list.map((s) => st(s, inLoop)).join("\n");
  const st = (s: Statement, inLoop: boolean): string => {
    switch (s.kind) {
      case "set":
        return `v${s.index} = ${ex(s.value)};`;
      case "store":
        return `pm_store_u32(${own(ex(s.at))}, ${ex(s.value)});`;
      case "storeVector":
        return `{ let x = ${ex(s.value)}; pm_store_vec4u(${ownVector(ex(s.at))}, vec4u(x, x + 1u, x * 3u, v0)); }`;
      case "add":
        return `pm_atomic_add_u32(${memory.bins}u + (${ex(s.bin)}) % ${memory.binCount}u, ${ex(s.value)});`;
      case "take": {
        const compare = s.op === "compare_exchange";
        const args = `${own(`(${ex(s.at)}) % ${taken}u`)}, ${compare ? `v${s.index}, ` : ""}${ex(s.value)}`;
        return `v${s.index} = pm_atomic_${s.op}_u32(${args})${compare ? ".old_value" : ""};`;
      }
      case "spin":
        return `while ((pm_load_u32(${shared(ex(s.at), 0)}) & ${THERE}u) == 0u) { }`;
      case "exchange": {
        const other = `(lane + ${s.by}u) % ${GROUP}u`;
        const word = ownOf(`(id.x - lane + ${other})`, `v${s.index} % ${EXCHANGED}u`);
        const { how } = s;
        switch (how) {
          case "register":
            return `tile[lane] = v${s.index}; workgroupBarrier(); v${s.index} = tile[${other}]; workgroupBarrier();`;
          case "load":
            return `storageBarrier(); v${s.index} = pm_load_u32(${word}); storageBarrier();`;
          case "take":
            return `storageBarrier(); v${s.index} = pm_atomic_add_u32(${word}, v${(s.index + 1) % VARIABLES}); storageBarrier();`;
          default:
            return how satisfies never;
        }
      }
      case "walk":
        return `v${s.index} = walk(${ex(s.at)}, (${ex(s.turns)}) % 9u);`;
      case "bump":
        return `bump(&v${s.index}, ${ex(s.value)});`;
      case "choose": {
        const cases = s.cases.map((list, i) => `case ${i}u: { ${all(list, inLoop)} }`);
        return `switch ((${ex(s.value)}) % 3u) { ${cases.join(" ")} default: { v0 += 7u; } }`;
      }
      case "if":
        return `if ((${ex(s.condition)}) % 2u == 1u) { ${all(s.yes, inLoop)} } else { ${all(s.no, inLoop)} }`;
      case "loop": {
        const n = `n${loops++}`;
        const turns = `(${ex(s.turns)}) % 7u`;
        const body = all(s.body, true);
        switch (s.form) {
          case "for":
            return `{ let t${n} = ${turns}; for (var ${n} = 0u; ${n} < t${n}; ${n}++) { ${body} } }`;
          case "while":
            return `{ var ${n} = ${turns}; while (${n} > 0u) { ${n}--; ${body} } }`;
          case "loop":
            return `{ var ${n} = ${turns}; loop { if (${n} == 0u) { break; } ${body} continuing { ${n}--; } } }`;
          default:
            return s.form satisfies never;
        }
      }
      case "leave":
        return together && !inLoop
          ? ""
          : `if ((${ex(s.condition)}) % 3u == 1u) { ${howToLeave(s.how, inLoop, together)}; }`;
      default:
        return s satisfies never;
    }
  };
  return `
fn fold(v: vec4u) -> u32 { return v.x ^ (v.y * 3u) ^ (v.z * 5u) ^ (v.w * 7u); }
fn within(a: u32, i: u32) -> u32 {
  let s = pm_span(a, 8u);
  return pm_span_load_u32(s, i % s.words);
}
fn helper(a: u32) -> u32 {
  loop {
    let x = pm_load_u32(a);
    if (x % 2u == 0u) { return x; }
    return x + pm_load_u32(a + 1u);
  }
  // Never reached; Firefox takes no function that ends with a loop.
  return 0u;
}
struct Walk { sum: u32, way: vec2u, seen: array<u32, 3> }
fn walk(a: u32, turns: u32) -> u32 {
  var w = Walk(a, vec2u(turns, 1u), array(1u, 2u, 3u));
  for (var i = 0u; i < turns; i++) {
    let x = pm_load_u32(${shared("w.sum", 0)});
    w.seen[i % 3u] = x;
    w.sum += x + w.way.y;
    w.way = w.way.yx;
    if (x % 16u == 5u) { return w.sum; }
  }
  return w.sum ^ w.seen[0] ^ w.seen[2];
}
fn bump(v: ptr<function, u32>, x: u32) { *v = *v * 2u + x; }
${together ? `var<workgroup> tile: array<u32, ${GROUP}>;` : ""}
@compute @workgroup_size(${shape.workgroup.join(", ")})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) lane: u32) {
  let id = vec3u((wg.x + grid.x * (wg.y + grid.y * wg.z)) * ${GROUP}u + lane, 0u, 0u);
  ${Array.from({ length: VARIABLES }, (_, i) => `var v${i} = ${i}u;`).join(" ")}
  ${all(statements, false)}
  pm_store_u32(${own("0u")}, v0 + v1 * 3u + v2 * 5u);
}`;
}
