/** What a kernel's fatal access becomes for its caller. */
import { formatAddr, KernelError, PAGE_SIZE, type VirtAddr } from "../../../base/index.ts";
import { type AddressSpace, addrOfSvm, type Vma, VmFlags } from "../../../mm/index.ts";
import type { CompiledSvmKernel } from "./compile-svm.ts";
import type { FatalAccess } from "./control.ts";
import type { FatalCode } from "./control-layout.ts";

/** An error that names the entry point, the invocation, the address and what is mapped there; `unresumed`: why there are no resume points. */
export function fatalError(
  op: string,
  { reflection, features }: CompiledSvmKernel,
  mm: AddressSpace,
  fatal: FatalAccess,
  unresumed?: string,
): KernelError {
  const addr = addrOfSvm(fatal.address);
  const vma = mm.vmas.find(addr);
  const where = `svm address ${fatal.address} (${formatAddr(addr)})`;
  const who = `${reflection.entryPoint}, workgroup ${fatal.workgroup}, invocation ${fatal.lane},`;
  const inside = vma === undefined ? "outside every mapping" : `in ${vma.name}`;
  const remedy = vma === undefined ? ": check the kernel's pointers" : whyUnreachable(vma, addr);
  const instead = unresumed === undefined ? "" : `; resume points do not apply: ${unresumed}`;
  const messages: Record<Exclude<FatalCode, 0>, readonly ["EFAULT" | "EPERM" | "ENOTSUP", string]> = {
    1: ["EFAULT", `${who} reads ${where}, ${inside}${remedy}`],
    2: ["EFAULT", `${who} writes ${where}, ${inside}${remedy}`],
    3: ["EPERM", `${who} writes ${where}, ${inside}, which is mapped read-only: map it writable`],
    4: [
      "ENOTSUP",
      `${who} stores more words than can be kept back and reads them again, last ${where}: store less in one invocation, or dispatch when all memory is resident${instead}`,
    ],
    5: [
      "ENOTSUP",
      `${who} took another way when it was run again after an atomic operation, at ${where}: let its path depend on data that no other invocation changes`,
    ],
    6: ["EFAULT", `${who} uses an index past the end of its span at ${where}: check it against the span's length`],
    7: [
      "ENOTSUP",
      `${who} reads ${features.reread.join(" or ")} at index ${fatal.address}, where it has stored before: keep the value in a variable of the function${instead}`,
    ],
  };
  const [code, why] = messages[fatal.code === 0 ? 1 : fatal.code];
  return new KernelError(code, op, why);
}

function whyUnreachable(vma: Vma, addr: VirtAddr): string {
  const { pages } = vma.object;
  if (vma.objectPage(addr) >= pages) {
    return `, past the end of its ${pages * PAGE_SIZE} bytes: check the kernel's pointers`;
  }
  return (vma.flags & VmFlags.Read) === 0
    ? ", which may not be read: mprotect it first"
    : ", which is no memory that a device could mirror: check the kernel's pointers";
}
