import { expect, test } from "vitest";
import { createMm } from "../testing/mm.ts";
import { addrOfSvm, SVM_APERTURE_BASE, SVM_APERTURE_BYTES } from "./aperture.ts";

test("an address is a number of words from the aperture's base", async () => {
  await using mm = createMm();
  const m = await mm.mmap({ length: 4096 });
  expect(m.svmAddress).toBe((m.start - SVM_APERTURE_BASE) / 4);
  expect(addrOfSvm(m.svmAddress)).toBe(m.start);
});

test("EINVAL: a mapping that leaves the aperture has no address, as words past the end would be other memory's", async () => {
  await using mm = createMm();
  const m = await mm.mmap({ length: SVM_APERTURE_BYTES, name: "huge" });
  expect(() => m.svmAddress).toThrow(/EINVAL: huge at .* has 17179869184 bytes, which leave the 16 GiB.*map less/);
  const outside = await mm.mmap({ addr: SVM_APERTURE_BASE - 4096, length: 4096, name: "outside" });
  expect(() => outside.svmAddress).toThrow(/EINVAL: outside at .* has no svm address/);
  const last = await mm.mmap({ addr: SVM_APERTURE_BASE + SVM_APERTURE_BYTES - 4096, length: 4096, fixed: true });
  expect(last.svmAddress).toBe(2 ** 32 - 1024);
});
