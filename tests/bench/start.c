/* tests/bench/start.c — start N COMMAND…: median of N runs of a command, in microseconds */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;
static int by_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
int main(int argc, char **argv)
{
    int n = argc > 2 ? atoi(argv[1]) : 0;
    if (n < 1 || n > 1000)
        return 2;
    static double t[1000];
    for (int i = 0; i < n; i++) {
        struct timespec a, b;
        pid_t p;
        int s;
        clock_gettime(CLOCK_MONOTONIC, &a);
        if (posix_spawnp(&p, argv[2], NULL, NULL, argv + 2, environ) || waitpid(p, &s, 0) < 0 || s) {
            fprintf(stderr, "start: '%s' failed\n", argv[2]);
            return 1;
        }
        clock_gettime(CLOCK_MONOTONIC, &b);
        t[i] = (double)(b.tv_sec - a.tv_sec) * 1e6 + (double)(b.tv_nsec - a.tv_nsec) / 1e3;
    }
    qsort(t, (size_t)n, sizeof *t, by_double);
    printf("%.0f\n", t[n / 2]);
    return 0;
}
