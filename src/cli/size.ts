/** Sizes as people write them: `4096`, `64K`, `1.5G`. */
import { UsageError } from "./errors.ts";

const UNITS: Readonly<Record<string, number>> = { "": 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

/**
 * Bytes of a size with an optional K, M, G or T (powers of 1024).
 * @throws UsageError when it is no size, no whole number of bytes, or zero.
 */
export function parseSize(text: string, where: string): number {
  const match = /^(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?$/i.exec(text);
  const bytes = Number(match?.[1]) * (UNITS[match?.[2]?.toUpperCase() ?? ""] ?? 1);
  if (match === null || !Number.isSafeInteger(bytes)) {
    throw new UsageError(`${where}: "${text}" is not a size: write bytes, or a number with K, M or G, such as 64M`);
  }
  if (bytes === 0) {
    throw new UsageError(`${where}: the size is 0: use at least 1 byte`);
  }
  return bytes;
}

/** `1.5 MiB`, for people; exact bytes below 10 KiB. */
export function formatBytes(bytes: number): string {
  if (bytes < 10 * 1024) {
    return `${bytes} B`;
  }
  const power = Math.min(4, Math.floor(Math.log2(bytes) / 10));
  const value = bytes / 1024 ** power;
  return `${value.toFixed(value < 100 ? 1 : 0)} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}`;
}
