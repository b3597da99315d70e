/** The part of an address space that devices address in svm mode: with one u32, in 4-byte words from its base. */
import { formatAddr, KernelError, type VirtAddr } from "../base/index.ts";

/** First byte of the aperture. Mappings without a wish are placed from here on, so that addresses are above 2^40. */
export const SVM_APERTURE_BASE = 0x7000_0000_0000;
/** Bytes of the aperture: 2^32 words. */
export const SVM_APERTURE_BYTES = 2 ** 34;
/** Nothing is placed below this offset, so that an svm address of 0 is never valid. */
export const SVM_FIRST_BYTE = 65_536;

/**
 * The svm address of a byte, where `length` bytes are to be reached from.
 * @throws KernelError EINVAL not all of them are inside the aperture, or no multiple of 4
 */
export function svmAddressOf(addr: number, name: string, length = 4): number {
  const offset = addr - SVM_APERTURE_BASE;
  if (offset >= 0 && offset < SVM_APERTURE_BYTES && offset + length > SVM_APERTURE_BYTES) {
    const gib = SVM_APERTURE_BYTES / 2 ** 30;
    const why = `${name} at ${formatAddr(addr)} has ${length} bytes, which leave the ${gib} GiB of svm addresses: map less of it at once`;
    throw new KernelError("EINVAL", "svmAddress", why);
  }
  if (offset < 0 || offset >= SVM_APERTURE_BYTES || offset % 4 !== 0) {
    throw new KernelError(
      "EINVAL",
      "svmAddress",
      `${name} at ${formatAddr(addr)} has no svm address: it needs a multiple of 4 in the ${SVM_APERTURE_BYTES / 2 ** 30} GiB from ${formatAddr(SVM_APERTURE_BASE)} on; unmap something, or map it at an addr in there`,
    );
  }
  return offset / 4;
}

/** The byte that an svm address names. */
export function addrOfSvm(address: number): VirtAddr {
  return (SVM_APERTURE_BASE + address * 4) as VirtAddr;
}
