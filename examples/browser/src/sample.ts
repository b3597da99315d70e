/** A file for those who have none at hand. */

const WORDS =
  "page fault fence range lease kernel notifier migrate invalidate device memory needle address space window the a of to".split(
    " ",
  );
const MIB = 160;
const VARIANTS = 8;

/** Text of one MiB, the same each time; higher variants say "mirror" more often. */
function textOf(variant: number): string {
  let x = variant + 1;
  let text = "";
  while (text.length < 2 ** 20) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    const word = (x >>> 20) % 64 < variant ? "mirror" : WORDS[(x >>> 12) % WORDS.length];
    text += `${word}${(x >>> 8) % 13 === 0 ? "\n" : " "}`;
  }
  return text.slice(0, 2 ** 20);
}

/** Larger than what a GPU of WebGPU's least limits binds at once, 128 MiB. */
export function makeSample(): File {
  const texts = Array.from({ length: VARIANTS }, (_, variant) => textOf(variant));
  const wave = (i: number) => Math.round(((VARIANTS - 1) * (1 + Math.sin(i / 9))) / 2);
  return new File(
    Array.from({ length: MIB }, (_, i) => texts[wave(i)]),
    "sample.txt",
  );
}
