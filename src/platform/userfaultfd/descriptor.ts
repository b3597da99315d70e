/** Getting a userfaultfd descriptor that can do what is needed, or the reason why there is none. */
import {
  CONTINUE_WP,
  ErrnoNumber,
  FEATURES,
  Feature,
  Ioctl,
  MAP_ANONYMOUS,
  MAP_NORESERVE,
  MAP_PRIVATE,
  MAP_SHARED,
  MFD_CLOEXEC,
  PAGE_IS_WRITTEN,
  PROT_READ_WRITE,
  REGISTER_MINOR,
  REGISTER_MISSING,
  REGISTER_WP,
  SCAN_ARG_BYTES,
  SCAN_CHECK_WPASYNC,
  SCAN_WP_MATCHING,
  SYS_USERFAULTFD,
  UFFD_API,
  UFFD_FLAGS,
  UFFD_USER_MODE_ONLY,
} from "./abi.ts";
import { FILE_BYTES } from "./files.ts";
import type { Libc } from "./libc.ts";

/** A descriptor, and what it may be used for. */
export interface UffdDescriptor {
  readonly fd: number;
  /** False: system calls into absent pages fail with EFAULT instead of waiting. */
  readonly systemCalls: boolean;
}

/** Why userfaultfd cannot be used here. */
export interface UffdProblem {
  readonly why: string;
  readonly remedy: string;
}

const KERNEL_REMEDY = "run Linux 6.7 or later";
const PAGE = 4096;

/** What to do where a call failed with an errno: it may say more than the call does. */
function remedyOf(errno: number, remedy: string): string {
  switch (errno) {
    case ErrnoNumber.EMFILE:
    case ErrnoNumber.ENFILE:
      return "no descriptor is left, so close some, or allow more (ulimit -n)";
    case ErrnoNumber.EFBIG:
      return "files may have a limited length only, so allow more (ulimit -f unlimited)";
    default:
      return remedy;
  }
}

/**
 * Opens a descriptor with the features of this library. Tried in this order, and judged by what happens, not by
 * capabilities: the system call; /dev/userfaultfd; the system call for faults of user mode only.
 */
export function openUffd(libc: Libc): UffdDescriptor | UffdProblem {
  const found = openPlain(libc);
  if (!("fd" in found)) {
    return found;
  }
  const missing = missingFeatures(libc, found.fd);
  if (missing !== undefined) {
    libc.close(found.fd);
    return missing;
  }
  return found;
}

function openPlain(libc: Libc): UffdDescriptor | UffdProblem {
  const number = SYS_USERFAULTFD[process.arch];
  if (number === undefined) {
    return { why: `${process.arch} processors are not supported`, remedy: "run on x64 or arm64" };
  }
  const fd = libc.syscall(number, UFFD_FLAGS, 0, 0, 0);
  if (fd >= 0) {
    return { fd, systemCalls: true };
  }
  const first = libc.errno;
  const device = libc.open("/dev/userfaultfd", UFFD_FLAGS);
  if (device >= 0) {
    const fromDevice = libc.ioctl(device, Ioctl.New, UFFD_FLAGS);
    libc.close(device);
    if (fromDevice >= 0) {
      return { fd: fromDevice, systemCalls: true };
    }
  }
  const userOnly = libc.syscall(number, UFFD_FLAGS | UFFD_USER_MODE_ONLY, 0, 0, 0);
  if (userOnly >= 0) {
    return { fd: userOnly, systemCalls: false };
  }
  if (libc.errno === ErrnoNumber.ENOSYS || first === ErrnoNumber.ENOSYS) {
    return { why: "the kernel has no userfaultfd (ENOSYS)", remedy: "use a kernel built with CONFIG_USERFAULTFD" };
  }
  if (libc.errno === ErrnoNumber.EPERM) {
    return {
      why: "the system call is forbidden, even for faults of user mode (EPERM): a seccomp filter, as containers have",
      remedy: "allow userfaultfd in the container's seccomp profile, or give it /dev/userfaultfd",
    };
  }
  return {
    why: `userfaultfd fails with errno ${first}`,
    remedy: remedyOf(
      first,
      "set vm.unprivileged_userfaultfd=1, or make /dev/userfaultfd readable and writable for this user",
    ),
  };
}

/** UFFDIO_API works once on a descriptor, so that asking for too much would spoil it: the kernel is asked first. */
function missingFeatures(libc: Libc, fd: number): UffdProblem | undefined {
  const asked = openPlain(libc);
  if ("fd" in asked) {
    api(libc, asked.fd, 0);
    const offered = libc.get(1);
    libc.close(asked.fd);
    const lacking = Object.entries(Feature).filter(([, bit]) => Math.floor(offered / bit) % 2 === 0);
    if (lacking.length > 0) {
      return { why: `the kernel lacks ${lacking.map(([name]) => name).join(", ")}`, remedy: KERNEL_REMEDY };
    }
  }
  return api(libc, fd, FEATURES)
    ? undefined
    : { why: `UFFDIO_API fails with errno ${libc.errno}`, remedy: KERNEL_REMEDY };
}

function api(libc: Libc, fd: number, features: number): boolean {
  libc.set(0, UFFD_API);
  libc.set(1, features);
  libc.set(2, 0);
  return libc.ioctl(fd, Ioctl.Api, libc.scratch) === 0;
}

/** One page, mapped, continued, write-protected and scanned, as the real thing: undefined when all of that works. */
export function trial(libc: Libc, fd: number): UffdProblem | undefined {
  const memfd = libc.memfdCreate("pagemirror-trial", MFD_CLOEXEC);
  const pagemap = libc.open("/proc/self/pagemap", 0);
  let addr = -1;
  const fail = (what: string, remedy = KERNEL_REMEDY) => ({
    why: `${what} fails with errno ${libc.errno}`,
    remedy: remedyOf(libc.errno, remedy),
  });
  try {
    if (memfd >= 0 && libc.ftruncate(memfd, FILE_BYTES) !== 0) {
      return fail("ftruncate of a memfd");
    }
    if (memfd < 0 || libc.fallocate(memfd, 0, 0, PAGE) !== 0) {
      return fail("memfd_create", "allow memfd_create, and give the process memory");
    }
    if (pagemap < 0) {
      return fail("opening /proc/self/pagemap", "mount /proc");
    }
    addr = libc.mmap(0, PAGE, PROT_READ_WRITE, MAP_SHARED | MAP_NORESERVE, memfd, 0);
    if (addr < 0) {
      addr = libc.mmap(0, PAGE, PROT_READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      return fail("mmap", "give the process memory");
    }
    libc.set(0, addr);
    libc.set(1, PAGE);
    libc.set(2, REGISTER_MISSING | REGISTER_MINOR | REGISTER_WP);
    if (libc.ioctl(fd, Ioctl.Register, libc.scratch) !== 0) {
      return fail("UFFDIO_REGISTER");
    }
    libc.set(2, CONTINUE_WP);
    if (libc.ioctl(fd, Ioctl.Continue, libc.scratch) !== 0) {
      return fail("UFFDIO_CONTINUE");
    }
    libc.words.fill(0, 0, SCAN_ARG_BYTES / 4);
    const fields: readonly [number, number][] = [
      [0, SCAN_ARG_BYTES],
      [1, SCAN_WP_MATCHING | SCAN_CHECK_WPASYNC],
      [2, addr],
      [3, addr + PAGE],
      [5, libc.scratch + PAGE],
      [6, 1],
      [9, PAGE_IS_WRITTEN],
      [11, PAGE_IS_WRITTEN],
    ];
    for (const [field, value] of fields) {
      libc.set(field, value);
    }
    return libc.ioctl(pagemap, Ioctl.PagemapScan, libc.scratch) < 0 ? fail("PAGEMAP_SCAN") : undefined;
  } finally {
    if (addr >= 0) {
      libc.munmap(addr, PAGE);
    }
    for (const opened of [memfd, pagemap]) {
      if (opened >= 0) {
        libc.close(opened);
      }
    }
  }
}
