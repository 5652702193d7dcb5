/* Attacks, one function each. A function returns 0 if the attack worked and the errno of
 * the refusal if it did not. It must do no harm where it works: it runs as root on the host
 * first, to prove that it is a real attack. */
#pragma once

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct attack {
  const char *name;
  int (*run)(const char *argument);
};

extern const struct attack process_attacks[]; /* namespaces, init, limits, identity */
extern const struct attack kernel_attacks[];  /* system calls that reach rarely used kernel code */
extern const struct attack system_attacks[];  /* mounts, files, devices, network */

static inline int result(long value) { return value < 0 ? errno : 0; }

/* Opens and, on success, closes. */
static inline int can_open(const char *path, int flags) {
  int fd = open(path, flags | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) return errno;
  close(fd);
  return 0;
}

/* The call came as far as the check of its arguments: only privilege could bring it there. */
static inline int reached(long value) {
  if (value >= 0) return 0;
  return errno == EPERM || errno == EACCES || errno == ENOSYS ? errno : 0;
}
