/**
 * The kernel's interface as numbers, each with the line of the header that it comes from. 64-bit fields are two 32-bit
 * words here: numbers are exact up to 2^53, and addresses stay below 2^48.
 *
 * Headers of Linux 6.18: `include/uapi/linux/userfaultfd.h` (uffd below), `include/uapi/linux/fs.h`, and
 * `include/uapi/asm-generic/{mman,mman-common,fcntl}.h` for x86-64 and arm64, which agree in all of these.
 */

/** System call numbers. @linux arch/x86/entry/syscalls/syscall_64.tbl 323; include/uapi/asm-generic/unistd.h 282 */
export const SYS_USERFAULTFD: Readonly<Record<string, number>> = { x64: 323, arm64: 282 };

/** @linux asm-generic/fcntl.h O_CLOEXEC 02000000 */
export const CLOEXEC = 0x80000;
/** `O_CLOEXEC | O_NONBLOCK`. @linux asm-generic/fcntl.h O_NONBLOCK 00004000 */
export const UFFD_FLAGS = CLOEXEC | 0x800;
/** @linux userfaultfd.h `#define UFFD_USER_MODE_ONLY 1` */
export const UFFD_USER_MODE_ONLY = 1;

/** ioctl numbers: `_IOC(direction, type, number, size of the argument)`. */
export const Ioctl = {
  /** `_IO(0xAA, 0x00)`, on /dev/userfaultfd. @linux userfaultfd.h USERFAULTFD_IOC_NEW */
  New: 0xaa00,
  /** `_IOWR(UFFDIO, 0x3F, struct uffdio_api)`, 24 bytes */
  Api: 0xc018aa3f,
  /** `_IOWR(UFFDIO, 0x00, struct uffdio_register)`, 32 bytes */
  Register: 0xc020aa00,
  /** `_IOR(UFFDIO, 0x01, struct uffdio_range)`, 16 bytes */
  Unregister: 0x8010aa01,
  /** `_IOR(UFFDIO, 0x02, struct uffdio_range)`, 16 bytes */
  Wake: 0x8010aa02,
  /** `_IOWR(UFFDIO, 0x03, struct uffdio_copy)`, 40 bytes */
  Copy: 0xc028aa03,
  /** `_IOWR(UFFDIO, 0x07, struct uffdio_continue)`, 32 bytes */
  Continue: 0xc020aa07,
  /** `_IOWR('f', 16, struct pm_scan_arg)`, 96 bytes. @linux fs.h PAGEMAP_SCAN */
  PagemapScan: 0xc0606610,
} as const;

/** @linux userfaultfd.h `#define UFFD_API ((__u64)0xAA)` */
export const UFFD_API = 0xaa;

/** @linux userfaultfd.h UFFD_FEATURE_* */
export const Feature = {
  PagefaultFlagWp: 1 << 0,
  MissingShmem: 1 << 5,
  ThreadId: 1 << 8,
  MinorShmem: 1 << 10,
  WpHugetlbfsShmem: 1 << 12,
  WpUnpopulated: 1 << 13,
  WpAsync: 1 << 15,
} as const;

/** What this library needs. */
export const FEATURES =
  Feature.PagefaultFlagWp |
  Feature.MissingShmem |
  Feature.ThreadId |
  Feature.MinorShmem |
  Feature.WpHugetlbfsShmem |
  Feature.WpUnpopulated |
  Feature.WpAsync;

/** @linux userfaultfd.h UFFDIO_REGISTER_MODE_MISSING, _WP, _MINOR */
export const REGISTER_MISSING = 1;
export const REGISTER_WP = 2;
export const REGISTER_MINOR = 4;

/** @linux userfaultfd.h UFFDIO_CONTINUE_MODE_WP, UFFDIO_COPY_MODE_WP */
export const CONTINUE_WP = 2;
export const COPY_WP = 2;

/** `struct uffd_msg`, 32 bytes: event u8 @0; pagefault: flags u64 @8, address u64 @16, ptid u32 @24. */
export const MSG_BYTES = 32;
/** @linux userfaultfd.h `#define UFFD_EVENT_PAGEFAULT 0x12` */
export const EVENT_PAGEFAULT = 0x12;
/** @linux userfaultfd.h UFFD_PAGEFAULT_FLAG_WRITE, _WP, _MINOR */
export const FAULT_WRITE = 1;
export const FAULT_MINOR = 4;

/** `struct pm_scan_arg` is 96 bytes, `struct page_region` 24: start, end, categories. @linux fs.h */
export const SCAN_ARG_BYTES = 96;
export const SCAN_REGION_WORDS = 6;
/** @linux fs.h PM_SCAN_WP_MATCHING, PM_SCAN_CHECK_WPASYNC, PAGE_IS_WRITTEN */
export const SCAN_WP_MATCHING = 1;
export const SCAN_CHECK_WPASYNC = 2;
export const PAGE_IS_WRITTEN = 2;

/** @linux asm-generic/poll.h `#define POLLIN 0x0001` */
export const POLLIN = 1;

/** @linux asm-generic/mman-common.h, mman.h */
export const PROT_READ = 1;
export const PROT_READ_WRITE = 1 | 2;
export const MAP_SHARED = 0x01;
export const MAP_PRIVATE = 0x02;
export const MAP_FIXED = 0x10;
export const MAP_ANONYMOUS = 0x20;
export const MAP_NORESERVE = 0x4000;
/** @linux include/uapi/linux/mman.h MREMAP_MAYMOVE | MREMAP_FIXED */
export const MREMAP_TO = 1 | 2;
export const MADV_DONTNEED = 4;
/** @linux include/uapi/linux/memfd.h `#define MFD_CLOEXEC 0x0001U` */
export const MFD_CLOEXEC = 1;
/** @linux include/uapi/linux/falloc.h FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE */
export const FALLOC_PUNCH_HOLE = 1 | 2;

/** @linux asm-generic/errno-base.h, errno.h */
export const ErrnoNumber = {
  EPERM: 1,
  ENOENT: 2,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EEXIST: 17,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  EFBIG: 27,
  ENOSYS: 38,
} as const;
