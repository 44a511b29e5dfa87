/* meta: every case of rename. */
#include "tests/unit/meta/fixture.h"

#define NOREPLACE 1u
#define EXCHANGE 2u

/* What may be at either end. */
enum kind { NONE, FILE_, LINK_, EMPTY, FULL, KINDS };
static const char *const kind_names[] = {"nothing", "file", "symlink", "empty directory", "full directory"};

static kfs_ino_t put(kfs_ino_t parent, const char *name, enum kind k)
{
    switch (k) {
    case NONE:
        return 0;
    case FILE_:
        return fx_make(parent, name, S_IFREG | 0644);
    case LINK_:
        return fx_make(parent, name, S_IFLNK);
    default:
        break;
    }
    kfs_ino_t d = fx_make(parent, name, S_IFDIR | 0755);
    if (k == FULL) {
        (void)fx_make(d, "inside", S_IFREG | 0644);
        (void)fx_make(d, "insidedir", S_IFDIR | 0755);
    }
    return d;
}

static int expect(enum kind from, enum kind to, unsigned flags)
{
    if (from == NONE)
        return -ENOENT;
    if (flags == NOREPLACE)
        return to == NONE ? 0 : -EEXIST;
    if (flags == EXCHANGE)
        return to == NONE ? -ENOENT : 0;
    if (to == NONE)
        return 0;
    bool fd = from >= EMPTY, td = to >= EMPTY;
    if (fd && !td)
        return -ENOTDIR;
    if (!fd && td)
        return -EISDIR;
    return to == FULL ? -ENOTEMPTY : 0;
}

static void matrix_one(enum kind from, enum kind to, unsigned flags, bool same_parent)
{
    kfs_ino_t p = fx_make(1, "p", S_IFDIR | 0755), q = same_parent ? p : fx_make(1, "q", S_IFDIR | 0755);
    kfs_ino_t f = put(p, "from", from), t = put(q, "to", to);
    struct kfs_attr moved = {0}, replaced = {0};
    int rc = kfs_meta_rename(fx_m, NULL, p, "from", 4, q, "to", 2, flags, NULL, &moved, &replaced, &fx_err);
    if (rc != expect(from, to, flags))
        KT_FAIL("%s over %s, flags %u, %s parent: %d", kind_names[from], kind_names[to], flags, same_parent ? "same" : "other", rc);
    if (rc < 0) {
        ASSERT_EQ(fx_ino(p, "from"), f);
        ASSERT_EQ(fx_ino(q, "to"), t);
    } else {
        ASSERT_EQ(fx_ino(q, "to"), f);
        ASSERT_EQ(moved.ino, f);
        ASSERT_EQ(replaced.ino, t);
        struct kfs_attr now = fx_attr(f);
        ASSERT_EQ(memcmp(&now, &moved, sizeof now), 0);
        ASSERT_EQ(fx_ino(p, "from"), flags == EXCHANGE ? t : 0);
        if (t) {
            now = fx_attr(t);
            ASSERT_EQ(memcmp(&now, &replaced, sizeof now), 0);
            if (flags != EXCHANGE)
                ASSERT_EQ(now.nlink, 0);
            else if (to >= EMPTY)
                ASSERT_EQ(now.parent, p);
        }
        if (from >= EMPTY)
            ASSERT_EQ(moved.parent, q);
    }
    /* Take all of it away as it is named now, so that the next case finds nothing. */
    ASSERT_EQ(fx_rename(NULL, 1, "p", fx_ino(1, "attic"), kind_names[0], 0) == 0, 1);
    char old[64];
    static int n;
    snprintf(old, sizeof old, "p%d", n++);
    ASSERT_EQ(fx_rename(NULL, fx_ino(1, "attic"), kind_names[0], fx_ino(1, "attic"), old, 0), 0);
    if (!same_parent) {
        snprintf(old, sizeof old, "q%d", n++);
        ASSERT_EQ(fx_rename(NULL, 1, "q", fx_ino(1, "attic"), old, 0), 0);
    }
}

TEST(rename_matrix)
{
    fx_fresh();
    (void)fx_make(1, "attic", S_IFDIR | 0755);
    for (int from = NONE; from < KINDS; from++)
        for (int to = NONE; to < KINDS; to++)
            for (unsigned flags = 0; flags <= EXCHANGE; flags++)
                for (int same = 0; same < 2; same++)
                    matrix_one((enum kind)from, (enum kind)to, flags, same);
    fx_check();
}

TEST(rename_two_names_of_one_inode)
{
    struct kfs_attr moved, replaced = {.ino = 77};
    fx_fresh();
    kfs_ino_t f = fx_make(1, "a", S_IFREG | 0644);
    ASSERT_EQ(fx_link(NULL, f, 1, "b"), 0);
    ASSERT_EQ(kfs_meta_rename(fx_m, NULL, 1, "a", 1, 1, "b", 1, 0, NULL, &moved, &replaced, &fx_err), 0);
    ASSERT_EQ(moved.ino, f);
    ASSERT_EQ(replaced.ino, 0);
    ASSERT_EQ(fx_ino(1, "a"), f);
    ASSERT_EQ(fx_ino(1, "b"), f);
    ASSERT_EQ(fx_rename(NULL, 1, "a", 1, "a", 0), 0);
    ASSERT_EQ(fx_rename(NULL, 1, "a", 1, "a", NOREPLACE), -EEXIST);
    ASSERT_EQ(fx_rename(NULL, 1, "a", 1, "b", EXCHANGE), 0);
    ASSERT_EQ(fx_attr(f).nlink, 2);
    fx_check();
}

TEST(rename_into_own_subtree)
{
    fx_fresh();
    kfs_ino_t a = fx_make(1, "a", S_IFDIR | 0755), b = fx_make(a, "b", S_IFDIR | 0755), c = fx_make(b, "c", S_IFDIR | 0755);
    (void)fx_make(c, "f", S_IFREG | 0644);
    ASSERT_EQ(fx_rename(NULL, 1, "a", a, "x", 0), -EINVAL);
    ASSERT_EQ(fx_rename(NULL, 1, "a", c, "x", 0), -EINVAL);
    ASSERT_EQ(fx_rename(NULL, a, "b", c, "x", 0), -EINVAL);
    ASSERT_EQ(fx_rename(NULL, 1, "a", b, "c", EXCHANGE), -EINVAL);
    ASSERT_EQ(fx_rename(NULL, b, "c", 1, "a", EXCHANGE), -EINVAL);
    ASSERT_EQ(fx_rename(NULL, b, "c", 1, "a", 0), -ENOTEMPTY); /* onto what holds it */
    ASSERT_EQ(fx_rename(NULL, c, "f", 1, "a", 0), -ENOTEMPTY);
    ASSERT_EQ(fx_rename(NULL, b, "c", 1, "c", 0), 0);
    ASSERT_EQ(fx_rename(NULL, 1, "a", c, "a", 0), 0); /* the other way round is fine now */
    char path[64];
    ASSERT_EQ(kfs_meta_path_of(fx_m, b, path, sizeof path, &fx_err), 6);
    ASSERT_STR(path, "/c/a/b");
    fx_check();
}

TEST(rename_counts_subdirectories)
{
    fx_fresh();
    kfs_ino_t p = fx_make(1, "p", S_IFDIR | 0755), q = fx_make(1, "q", S_IFDIR | 0755);
    (void)fx_make(p, "d", S_IFDIR | 0755);
    (void)fx_make(q, "f", S_IFREG | 0644);
    ASSERT_EQ(fx_attr(p).nlink, 3);
    ASSERT_EQ(fx_rename(NULL, p, "d", q, "f", EXCHANGE), 0);
    ASSERT_EQ(fx_attr(p).nlink, 2);
    ASSERT_EQ(fx_attr(q).nlink, 3);
    (void)fx_make(p, "e", S_IFDIR | 0755);
    ASSERT_EQ(fx_rename(NULL, p, "e", q, "f", 0), 0); /* over an empty directory */
    ASSERT_EQ(fx_attr(p).nlink, 2);
    ASSERT_EQ(fx_attr(q).nlink, 3);
    ASSERT_EQ(fx_rename(NULL, q, "f", p, "g", 0), 0);
    ASSERT_EQ(fx_attr(p).nlink, 3);
    ASSERT_EQ(fx_attr(q).nlink, 2);
    fx_check();
}

TEST(rename_bad_arguments)
{
    fx_fresh();
    kfs_ino_t f = fx_make(1, "f", S_IFREG | 0644), d = fx_make(1, "d", S_IFDIR | 0755);
    ASSERT_EQ(fx_rename(NULL, 1, "f", 1, "g", 3), -EINVAL);
    ASSERT_EQ(fx_rename(NULL, 1, "f", 1, "g", 4), -EINVAL);
    ASSERT_EQ(fx_rename(NULL, 1, "f", 1, "..", 0), -EINVAL);
    ASSERT_EQ(fx_rename(NULL, 1, "", 1, "g", 0), -EINVAL);
    ASSERT_EQ(fx_rename(NULL, 1, "f", f, "g", 0), -ENOTDIR);
    ASSERT_EQ(fx_rename(NULL, f, "x", 1, "g", 0), -ENOTDIR);
    ASSERT_EQ(fx_rename(NULL, 1, "f", 99999, "g", 0), -ENOENT);
    ASSERT_EQ(fx_unlink(NULL, 1, "d", true), 0);
    ASSERT_EQ(fx_rename(NULL, 1, "f", d, "g", 0), -ENOENT); /* into a removed directory */
    fx_check();
}

/* Many random renames in a small tree; the rules hold at the end, and every directory's path leads to it. */
TEST(rename_at_random)
{
    fx_fresh();
    unsigned seed = 7;
    kfs_ino_t dirs[6] = {1};
    char name[16], name2[16];
    for (int i = 1; i < 6; i++) {
        snprintf(name, sizeof name, "d%d", i);
        dirs[i] = fx_make(dirs[(unsigned)rand_r(&seed) % (unsigned)i], name, S_IFDIR | 0755);
    }
    int done = 0;
    for (int step = 0; step < 4000; step++) {
        kfs_ino_t p = dirs[rand_r(&seed) % 6], q = dirs[rand_r(&seed) % 6];
        snprintf(name, sizeof name, rand_r(&seed) % 3 ? "d%d" : "f%d", rand_r(&seed) % 6);
        snprintf(name2, sizeof name2, rand_r(&seed) % 3 ? "d%d" : "f%d", rand_r(&seed) % 6);
        struct kfs_attr a;
        if (rand_r(&seed) % 8 == 0)
            (void)fx_make_as(NULL, p, name, name[0] == 'd' && rand_r(&seed) % 4 == 0 ? S_IFDIR | 0755 : S_IFREG | 0644, &a);
        int rc = fx_rename(NULL, p, name, q, name2, (unsigned)rand_r(&seed) % 3);
        ASSERT(rc == 0 || rc == -ENOENT || rc == -EEXIST || rc == -EINVAL || rc == -ENOTEMPTY || rc == -ENOTDIR || rc == -EISDIR);
        done += rc == 0;
    }
    ASSERT(done > 100);
    fx_check();
    for (int i = 0; i < 6; i++) {
        char path[400];
        if (fx_attr(dirs[i]).nlink == 0)
            continue;
        ASSERT(kfs_meta_path_of(fx_m, dirs[i], path, sizeof path, &fx_err) > 0);
        kfs_ino_t at = 1;
        for (char *c = strtok(path, "/"); c; c = strtok(NULL, "/"))
            at = fx_ino(at, c);
        ASSERT_EQ(at, dirs[i]);
    }
}

KT_MAIN
