/* The yardsticks of bench/uffd.mjs: the same work in C. Usage: uffd MODE PAGES AROUND; prints one figure. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ul

/* Own declarations: the headers of many systems are older than their kernel. */
struct api { uint64_t api, features, ioctls; };
struct reg { uint64_t start, len, mode, ioctls; };
struct copy { uint64_t dst, src, len, mode; int64_t copy; };
struct msg { uint8_t event, r1; uint16_t r2; uint32_t r3; uint64_t flags, address, tid; };
struct region { uint64_t start, end, categories; };
struct scan {
  uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages, inverted, mask, anyof, ret;
};
#define UFFDIO_API _IOWR(0xAA, 0x3F, struct api)
#define UFFDIO_REGISTER _IOWR(0xAA, 0x00, struct reg)
#define UFFDIO_COPY _IOWR(0xAA, 0x03, struct copy)
#define PAGEMAP_SCAN _IOWR('f', 16, struct scan)
#define FEATURES ((1 << 0) | (1 << 13) | (1 << 15))

static int fd;
static char *area, *staging;
static unsigned long pages, around;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static void die(const char *what) {
  perror(what);
  exit(1);
}

static void fill(unsigned long page, unsigned long count) {
  struct copy c = {(uint64_t)area + page * PAGE, (uint64_t)staging, count * PAGE, 2, 0};
  if (ioctl(fd, UFFDIO_COPY, &c)) die("UFFDIO_COPY");
}

static int order(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void *serve(void *unused) {
  (void)unused;
  struct msg m;
  while (read(fd, &m, sizeof m) == sizeof m) {
    unsigned long page = (m.address - (uint64_t)area) / PAGE;
    fill(page - page % around, around);
  }
  return NULL;
}

int main(int argc, char **argv) {
  if (argc < 4) return 2;
  pages = strtoul(argv[2], NULL, 10);
  around = strtoul(argv[3], NULL, 10);
  fd = syscall(SYS_userfaultfd, O_CLOEXEC);
  struct api a = {0xAA, FEATURES, 0};
  if (fd < 0 || ioctl(fd, UFFDIO_API, &a)) die("userfaultfd");
  area = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  staging = mmap(NULL, 512 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memset(staging, 1, 512 * PAGE);
  madvise(area, pages * PAGE, MADV_NOHUGEPAGE);
  struct reg r = {(uint64_t)area, pages * PAGE, 3, 0};
  if (ioctl(fd, UFFDIO_REGISTER, &r)) die("UFFDIO_REGISTER");
  if (!strcmp(argv[1], "touch")) {
    pthread_t thread;
    pthread_create(&thread, NULL, serve, NULL);
    volatile uint32_t sum = 0;
    double start = now();
    for (unsigned long p = 0; p < pages; p++) sum += *(volatile uint32_t *)(area + p * PAGE);
    printf("%.4f\n", (now() - start) * 1e3 / pages);
    fflush(stdout);
    _exit(0);
  }
  for (unsigned long p = 0; p < pages; p += 512) fill(p, 512);
  if (!strcmp(argv[1], "scan")) {
    int pagemap = open("/proc/self/pagemap", O_RDONLY);
    static struct region vec[1024];
    double times[21];
    for (int round = 0; round < 21; round++) {
      for (unsigned long p = 0; p < pages; p += 100) area[p * PAGE] = round;
      double start = now();
      unsigned long found = 0;
      for (uint64_t at = (uint64_t)area, end = at + pages * PAGE; at < end;) {
        struct scan s = {sizeof s, 3, at, end, 0, (uint64_t)vec, 1024, 0, 0, 2, 0, 2};
        int n = ioctl(pagemap, PAGEMAP_SCAN, &s);
        if (n < 0) die("PAGEMAP_SCAN");
        for (int i = 0; i < n; i++) found += (vec[i].end - vec[i].start) / PAGE;
        at = s.walk_end;
      }
      times[round] = now() - start;
      if (found != (pages + 99) / 100) return 3;
    }
    qsort(times, 21, sizeof *times, order);
    printf("%.4f\n", times[10]);
    return 0;
  }
  double start = now();
  madvise(area, pages * PAGE, MADV_DONTNEED);
  for (unsigned long p = 0; p < pages; p += around) fill(p, around);
  printf("%.4f\n", now() - start);
  return 0;
}
