/**
 * `npm run bundle`: what a page downloads to run kernels, as a bundler makes it of dist: the core, the software MMU and the
 * WebGPU driver, minified and compressed with gzip. Fails when it is more than it may be, or when programs that use a part
 * get the whole. Code that is loaded when it is first used (svm mode, URLs) is told beside it and not counted.
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { rolldown } from "rolldown";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

/** What the documents say may differ from what is measured by so many KiB. */
const SLACK_KIB = 2;

/** In KiB. */
export const MOST_GZIP_KIB = 60;
/** A program that uses one function of `base` gets little more. */
const MOST_PART_GZIP_KIB = 2;

/**
 * Bundles a program that imports from dist, with the bundler of Vite.
 * @param {string} program
 * @returns {Promise<{ firstKib: number, laterKib: number }>} what is loaded at once, and what when it is used
 */
export async function bundleKib(program) {
  const entry = path.join(root, "dist", "bundled-program.js");
  const bundle = await rolldown({
    input: entry,
    platform: "browser",
    plugins: [
      { name: "program", load: (id) => (id === entry ? program : null), resolveId: (id) => (id === entry ? id : null) },
    ],
    onLog: (level, { message }) => process.stderr.write(`${level}: ${message}\n`),
  });
  const { output } = await bundle.generate({ format: "esm", minify: true });
  await bundle.close();
  const chunks = new Map(output.map((chunk) => [chunk.fileName, chunk]));
  const first = new Set();
  const visit = (name) => {
    if (!first.has(name)) {
      first.add(name);
      chunks.get(name)?.imports.forEach(visit);
    }
  };
  visit(output.find((chunk) => chunk.isEntry)?.fileName);
  let [firstKib, laterKib] = [0, 0];
  for (const { fileName, code } of output) {
    const kib = gzipSync(code, { level: 9 }).length / 1024;
    if (first.has(fileName)) {
      firstKib += kib;
    } else {
      laterKib += kib;
    }
  }
  return { firstKib, laterKib };
}

/** What docs/browser.md says, and README.md. */
function documentedKib() {
  const of = (file, pattern) => {
    const found = pattern.exec(readFileSync(path.join(root, file), "utf8"))?.slice(1) ?? [Number.NaN];
    return found.reduce((sum, kib) => sum + Number(kib), 0);
  };
  return [
    { file: "docs/browser.md", what: "at once", kib: of("docs/browser.md", /downloads (\d+) KiB/) },
    { file: "README.md", what: "at once", kib: of("README.md", /It takes (\d+) KiB/) },
    {
      file: "docs/browser.md",
      what: "later",
      kib: of("docs/browser.md", /svm mode \((\d+) KiB\) and URLs \((\d+) KiB\)/),
    },
  ];
}

/** The whole of a page's program: `open` reaches the core, the MMU and the driver. */
export const coreBundle = () => bundleKib('import { open } from "./browser.js"; globalThis.pagemirror = open;');

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { firstKib, laterKib } = await coreBundle();
  const part = await bundleKib('import { pageAlignUp } from "./browser.js"; globalThis.pagemirror = pageAlignUp;');
  const figures = `${firstKib.toFixed(1)} KiB at once, ${laterKib.toFixed(1)} KiB when they are used (svm mode, URLs)`;
  const problems = [
    ...(firstKib > MOST_GZIP_KIB ? [`the core with the WebGPU driver is more than ${MOST_GZIP_KIB} KiB`] : []),
    ...(part.firstKib > MOST_PART_GZIP_KIB
      ? [`a program of one function takes ${part.firstKib.toFixed(1)} KiB: something is not tree-shakeable`]
      : []),
    ...documentedKib().flatMap(({ file, what, kib }) => {
      const measured = what === "later" ? laterKib : firstKib;
      return Math.abs(kib - measured) <= SLACK_KIB
        ? []
        : [`${file} says ${kib} KiB ${what}, and ${measured.toFixed(1)} are measured: correct it`];
    }),
  ];
  for (const problem of problems) {
    process.stderr.write(`${problem}\n`);
  }
  process.stdout.write(`bundle: ${figures}, minified and gzip\n`);
  process.exit(problems.length === 0 ? 0 : 1);
}
