/** Tables of which mostly every word is alike are looked through eight words a step. */

/** The AND of eight words from `i` on. */
export function allOf8(words: Uint32Array, i: number): number {
  return (
    words[i] & words[i + 1] & words[i + 2] & words[i + 3] & words[i + 4] & words[i + 5] & words[i + 6] & words[i + 7]
  );
}

/** The OR of eight words from `i` on. */
export function anyOf8(words: Uint32Array, i: number): number {
  return (
    words[i] | words[i + 1] | words[i + 2] | words[i + 3] | words[i + 4] | words[i + 5] | words[i + 6] | words[i + 7]
  );
}
