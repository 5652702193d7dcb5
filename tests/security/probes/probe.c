/* probe NAME [ARGUMENT]: runs one attack. Exit 0: it worked. Exit 1: refused, and the errno
 * is on stdout. A program killed by the sandbox says nothing. `probe --list` names all. */
#include "probe.h"

static const struct attack *const groups[] = {process_attacks, kernel_attacks, system_attacks};

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  for (size_t g = 0; g < sizeof groups / sizeof *groups; ++g) {
    for (const struct attack *a = groups[g]; a->name != NULL; ++a) {
      if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        puts(a->name);
        continue;
      }
      if (argc < 2 || strcmp(argv[1], a->name) != 0) continue;
      int refused = a->run(argc > 2 ? argv[2] : NULL);
      if (refused == 0) {
        puts("worked");
        return 0;
      }
      const char *name = strerrorname_np(refused);
      printf("refused %s\n", name != NULL ? name : "unknown");
      return 1;
    }
  }
  if (argc == 2 && strcmp(argv[1], "--list") == 0) return 0;
  fprintf(stderr, "probe: no attack of that name; --list names them\n");
  return 2;
}
