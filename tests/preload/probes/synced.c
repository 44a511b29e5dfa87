/* tests/preload/probes/synced.c — synced HOW FILE: writes "durable" to FILE, makes it durable by HOW, says so, and stays with FILE open until its stdin ends */
#include <aio.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static int by(const char *how, int fd, void *map)
{
    if (strcmp(how, "fsync") == 0)
        return fsync(fd);
    if (strcmp(how, "fdatasync") == 0)
        return fdatasync(fd);
    if (strcmp(how, "syncfs") == 0)
        return syncfs(fd);
    if (strcmp(how, "sync") == 0)
        return sync(), 0;
    if (strcmp(how, "msync") == 0)
        return msync(map, 7, MS_SYNC);
    if (strcmp(how, "number") == 0)
        return (int)syscall(SYS_fdatasync, fd);
    struct aiocb cb = {.aio_fildes = fd, .aio_buf = (char[]){"durable"}, .aio_nbytes = 7};
    const struct aiocb *all[] = {&cb}; /* the write is still queued when the sync is asked for */
    struct aiocb sync_cb = {.aio_fildes = fd};
    if (aio_write(&cb) < 0 || aio_fsync(O_SYNC, &sync_cb) < 0)
        return -1;
    while (aio_error(&cb) == EINPROGRESS)
        aio_suspend(all, 1, NULL);
    all[0] = &sync_cb;
    while (aio_error(&sync_cb) == EINPROGRESS)
        aio_suspend(all, 1, NULL);
    return aio_return(&cb) == 7 ? (int)aio_return(&sync_cb) : -1;
}

int main(int argc, char **argv)
{
    char c;
    int fd = argc == 3 ? open(argv[2], O_RDWR | O_CREAT, 0644) : -1;
    void *map = fd < 0 || ftruncate(fd, 7) < 0 ? MAP_FAILED : mmap(NULL, 7, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return 2;
    if (strcmp(argv[1], "msync") == 0)
        memcpy(map, "durable", 7);
    else if (strcmp(argv[1], "aio_fsync") != 0 && pwrite(fd, "durable", 7, 0) != 7)
        return 2;
    puts(by(argv[1], fd, map) == 0 ? "durable" : strerror(errno));
    fflush(stdout);
    while (read(0, &c, 1) > 0)
        ;
    return 0;
}
