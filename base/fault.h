/* base/fault.h — places where tests make KFS die or fail
 *
 * What     KFS_FAULT("area.place") marks a moment at which a crash must lose nothing; KFS_FAULT_ERR("area.place") is an expression, 0 or
 *          -errno, for a call that may fail. Both are nothing (0) unless compiled with KFS_FAULTS.
 * Model    The environment variable KFS_FAULT, read once, names one place and its n-th passage:
 *            area.place:n               SIGKILL to the own process (in either macro)
 *            area.place:n:errno=EIO     KFS_FAULT_ERR gives -EIO at the n-th passage; KFS_FAULT does nothing
 *            area.place:n+:errno=EIO    likewise at the n-th and every later one
 * Threads  Any; passages are counted over all threads.
 */
#ifndef KFS_BASE_FAULT_H
#define KFS_BASE_FAULT_H

int kfs_fault_hit(const char *name); /* for the macros */

#ifdef KFS_FAULTS
#define KFS_FAULT(name) ((void)kfs_fault_hit(name))
#define KFS_FAULT_ERR(name) kfs_fault_hit(name)
#else
#define KFS_FAULT(name) ((void)0)
#define KFS_FAULT_ERR(name) 0
#endif

#endif
