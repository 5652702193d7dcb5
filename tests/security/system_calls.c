// Makes system calls by number, each in a process of its own, and prints what came of it: `ok`, an errno, or `died SIGNAL`.
// Input: lines of the number and six arguments in hexadecimal; what follows on a line is not read.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
  char line[256];
  while (fgets(line, sizeof line, stdin)) {
    long number;
    unsigned long a[6];
    if (sscanf(line, "%ld %lx %lx %lx %lx %lx %lx", &number, &a[0], &a[1], &a[2], &a[3], &a[4], &a[5]) != 7) return 2;
    fflush(stdout);
    const pid_t child = fork();
    if (child < 0) return 3;
    if (child == 0) {
      signal(SIGALRM, SIG_DFL);
      alarm(2);  // some calls wait
      errno = 0;
      const long got = syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
      _exit(got == -1 && errno != 0 ? errno : 0);
    }
    int status = 0;
    if (waitpid(child, &status, 0) != child) return 4;
    if (WIFSIGNALED(status)) printf("died %d\n", WTERMSIG(status));
    else if (WEXITSTATUS(status) == 0) puts("ok");
    else printf("%d\n", WEXITSTATUS(status));
  }
  return 0;
}
