/**
 * Searches a text that is several times as large as the device's memory: counts the matches, shows the first ones with
 * their lines, and checks the result against the CPU.
 *
 *     npx tsx examples/grep.ts [SIZE] [DEVICE_MEMORY] [FILE] [NEEDLE]
 *
 * SIZE (default 64M) is the size of the text to make, DEVICE_MEMORY (default 8M) the most that may be allocated on the
 * device. FILE keeps the text for another time; one that is there, of any kind, is searched as it is.
 */
import { readFile } from "node:fs/promises";
import type { Mapping } from "../src/node.ts";
import { open } from "../src/node.ts"; // in your own code: from "pagemirror/node"
import "./one-line.ts";
import { makeFile, mix, readArguments, report } from "./svm-example.ts";

const [, , , needleText = "page fault"] = process.argv.slice(2);
const SHOWN = 3;
const PIECE = 256;
const WORKGROUP = 64;
const WORDS = ["the", "kernel", "page", "table", "device", "fault", "maps", "memory", "reads", "a", "frame", "and"];

/** Lines of words, `bytes` of them; every few thousand lines the two words of the default needle meet. */
function textFrom(seed: number, bytes: number): string {
  let text = "";
  for (let i = 0; text.length < bytes; i++) {
    const h = mix(seed * 1_000_003 + i);
    const word = WORDS[h % WORDS.length];
    // Almost never by chance: "page" is followed by "fault" where the number says so.
    const next = word === "page" && (h >>> 8) % 512 !== 0 ? "pages" : word;
    text += `${next}${(h >>> 20) % 9 === 0 ? "\n" : " "}`;
  }
  return text.slice(0, bytes);
}

interface Match {
  readonly line: number;
  readonly text: string;
}

/** The first matches, from the pieces that have some; lines are counted on the way. */
async function firstMatches(text: Mapping, bytes: number, needle: Uint8Array, pieces: Uint32Array): Promise<Match[]> {
  const matches: Match[] = [];
  let line = 1;
  for (let piece = 0; piece < pieces.length && matches.length < SHOWN; piece++) {
    if (pieces[piece] >>> 16 > 0) {
      const start = piece * PIECE;
      const from = Math.max(0, start - PIECE);
      const around = Buffer.from(await text.read(from, Math.min(bytes, start + 2 * PIECE + needle.length) - from));
      const begin = start - from;
      for (let at = around.indexOf(needle, begin); at >= 0 && at < begin + PIECE; at = around.indexOf(needle, at + 1)) {
        const before = around.subarray(begin, at).filter((byte) => byte === 10).length;
        const end = around.indexOf("\n", at);
        const shown = around.toString("latin1", around.lastIndexOf("\n", at) + 1, end < 0 ? around.length : end);
        matches.push({ line: line + before, text: shown });
      }
    }
    line += pieces[piece] & 0xffff;
  }
  return matches.slice(0, SHOWN);
}

function searchOnCpu(text: Buffer, needle: Uint8Array): { count: number; lines: number[] } {
  let count = 0;
  let line = 1;
  let counted = 0;
  const lines: number[] = [];
  for (let at = text.indexOf(needle); at >= 0; at = text.indexOf(needle, at + 1)) {
    count++;
    if (lines.length < SHOWN) {
      line += text.subarray(counted, at).filter((byte) => byte === 10).length;
      counted = at;
      lines.push(line);
    }
  }
  return { count, lines };
}

await using args = await readArguments();
await makeFile(args.file, args.size, (chunk, offset) => {
  new TextEncoder().encodeInto(textFrom(offset, chunk.length), chunk);
});

await using pm = await open({ deviceMemory: args.deviceMemory });
const object = await pm.openFile(args.file);
const bytes = object.length;
const groups = Math.ceil(bytes / (PIECE * WORKGROUP));
const text = await pm.mm.mmap({ length: bytes, object, shared: true, prot: "r", name: "text" });
await object.put();
const encoded = new TextEncoder().encode(needleText);
const needle = await pm.mm.mmap({ length: encoded.length, name: "needle" });
await needle.write(0, encoded);
const total = await pm.mm.mmap({ length: 4, name: "total" });
const pieces = await pm.mm.mmap({ length: groups * WORKGROUP * 4, name: "pieces" });

const kernel = await pm.device.kernel(await readFile(new URL("grep.wgsl", import.meta.url), "utf8"), { name: "grep" });
const started = performance.now();
const stats = await kernel.dispatch({
  mm: pm.mm,
  params: {
    text: text.svmAddress,
    bytes,
    needle: needle.svmAddress,
    needle_bytes: encoded.length,
    total: total.svmAddress,
    pieces: pieces.svmAddress,
  },
  workgroups: groups,
});
const counts = await pieces.read(0, groups * WORKGROUP * 4);
const found = await firstMatches(text, bytes, encoded, new Uint32Array(counts.buffer, counts.byteOffset));
const [count] = new Uint32Array((await total.read(0, 4)).buffer);
const ms = performance.now() - started;

const expected = searchOnCpu(await readFile(args.file), encoded);
for (const { line, text: shown } of found) {
  console.log(`${line}: ${shown}`);
}
report(
  `"${needleText}" ${count} times, on ${pm.adapter.name}`,
  { dataBytes: bytes, deviceMemory: args.deviceMemory, neededBytes: bytes, ms },
  stats,
  count === expected.count && found.every(({ line }, i) => line === expected.lines[i]),
);
