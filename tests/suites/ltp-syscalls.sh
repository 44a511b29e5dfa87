#!/usr/bin/env bash
# tests/suites/ltp-syscalls.sh — the Linux Test Project's tests of the system calls that concern files ($SUITES/ltp)
. "$(dirname "$0")/lib.sh"
. "$SUITES_HERE/ltp.inc"
SUITE_USERS=1
CALLS=${KFS_SUITE_LTP:-access|chdir|chmod|chown|chroot|close|close_range|copy_file_range|creat|dup2?|dup3_?|execl|execle|execlp|execv|execve|execveat|execvp|faccessat2?|fallocate|fchdir|fchmod|fchmodat2?_?|fchown|fchownat|fcntl|fdatasync|fgetxattr|flistxattr|flock|fpathconf|fremovexattr|fsetxattr|fstat|fstatat|fstatfs|fsync|ftruncate|futimesat|getcwd|getdents|getxattr|inotify|io_cancel|io_destroy|io_getevents|io_setup|io_submit|io_uring|lchown|lgetxattr|link|linkat|listxattr|llistxattr|llseek|lremovexattr|lseek|lstat|mkdir|mkdirat|mknod|mknodat|mmap|mremap|msync|munmap|name_to_handle_at|open|open_by_handle_at|openat|openat2|pathconf|pread|preadv|preadv2|pwrite|pwritev|pwritev2|read|readahead|readdir|readlink|readlinkat|readv|realpath|removexattr|rename|renameat2?|rmdir|select|sendfile|setxattr|splice|stat|statfs|statvfs|statx|symlink|symlinkat|sync|syncfs|sync_file_range|tee|truncate|umask|unlink|unlinkat|utime|utimensat|utimes|vmsplice|write|writev}
suite_have() { t_root && suite_foreign ltp/runtest/syscalls && suite_foreign ltp/testcases/bin/open01; }
suite_run() { # SIDE DIR LOG
    ltp_tests syscalls "($CALLS)_?[0-9]*(_64|_16|A|B|[a-z])?" >"$T/list"
    ltp_run "$1" "$2" "$3" "$T/list" 120
}
suite_main "$@"
