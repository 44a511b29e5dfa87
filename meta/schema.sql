-- The tables of a KFS volume, schema 2.
--
-- SQL of the common subset (meta/db.h): no foreign keys, no triggers, no generated keys; the code keeps the tables in step, one transaction a call.
-- INTEGER has 64 bits; NAME is up to 255 bytes, TEXT up to 1024, BLOB any number. Names, symlink targets and xattr values are bytes, not text: they are compared byte by byte and need not be UTF-8.

-- One row: whose tables these are. `schema` is the version of this file; a program opens what is as old as itself or older.
CREATE TABLE volume (
    one       INTEGER PRIMARY KEY, -- always 1
    `schema`  INTEGER NOT NULL,
    id        TEXT    NOT NULL,    -- uuid
    name      TEXT    NOT NULL,
    store     TEXT    NOT NULL,    -- URL of the objects
    created_s INTEGER NOT NULL
);

-- Short texts by key: what the volume or its kfsd remembers for itself.
CREATE TABLE setting (
    `key` TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- Where the numbers not yet handed out begin ('inode', 'object'). Taken in blocks, so gaps are normal; no number is ever used twice.
CREATE TABLE counter (
    name TEXT    NOT NULL PRIMARY KEY,
    next INTEGER NOT NULL
) WITHOUT ROWID;

-- Every file, directory, symlink and special file: what stat shows. `parent` and `name` are set for directories only (the way back up, for getcwd
-- and for the check that a directory does not move below itself). flags: KFS_ATTR_XATTRS. A directory's size is always 4096, its blocks 8.
CREATE TABLE inode (
    ino      INTEGER PRIMARY KEY,
    mode     INTEGER NOT NULL,
    nlink    INTEGER NOT NULL,
    uid      INTEGER NOT NULL,
    gid      INTEGER NOT NULL,
    rdev     INTEGER NOT NULL,
    size     INTEGER NOT NULL,
    blocks   INTEGER NOT NULL,
    version  INTEGER NOT NULL,
    flags    INTEGER NOT NULL,
    parent   INTEGER NOT NULL,
    atime_s  INTEGER NOT NULL,
    atime_ns INTEGER NOT NULL,
    mtime_s  INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_s  INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,
    btime_s  INTEGER NOT NULL,
    btime_ns INTEGER NOT NULL,
    name     NAME
);

-- One row a name. The key keeps a directory's entries together and in byte order, which is the order of readdir. type: DT_*.
CREATE TABLE dentry (
    parent INTEGER NOT NULL,
    name   NAME    NOT NULL,
    ino    INTEGER NOT NULL,
    type   INTEGER NOT NULL,
    PRIMARY KEY (parent, name)
) WITHOUT ROWID;

-- Inodes without a name: still open somewhere, or waiting to be purged. linkable: made by O_TMPFILE, so a first name may still come.
CREATE TABLE orphan (
    ino      INTEGER PRIMARY KEY,
    linkable INTEGER NOT NULL
);

-- Targets of symlinks.
CREATE TABLE symlink (
    ino    INTEGER PRIMARY KEY,
    target BLOB NOT NULL
);

-- Extended attributes. An inode has the XATTRS flag if and only if it has rows here.
CREATE TABLE xattr (
    ino   INTEGER NOT NULL,
    name  NAME    NOT NULL,
    value BLOB    NOT NULL,
    PRIMARY KEY (ino, name)
) WITHOUT ROWID;

-- Content of small files, whole. A regular file has a row here, or rows in extent, or neither (empty, or one hole); never both.
CREATE TABLE inline (
    ino  INTEGER PRIMARY KEY,
    data BLOB NOT NULL
);

-- Which bytes of a file lie where: [off, off+len) of the file are [object_off, object_off+len) of the object. Rows of an inode do not overlap and
-- end at or before its size; what they leave out is a hole.
CREATE TABLE extent (
    ino        INTEGER NOT NULL,
    off        INTEGER NOT NULL,
    len        INTEGER NOT NULL,
    object     INTEGER NOT NULL,
    object_off INTEGER NOT NULL,
    PRIMARY KEY (ino, off)
) WITHOUT ROWID;

-- Objects in use. Several inodes may name one object (a pack). A row whose refs reach 0 moves to garbage in the same transaction.
CREATE TABLE object (
    id    INTEGER PRIMARY KEY,
    bytes INTEGER NOT NULL, -- stored size
    plain INTEGER NOT NULL, -- plain bytes that commits ever named in it: what it was made for
    live  INTEGER NOT NULL, -- plain bytes that extent rows name now: sum of their len
    refs  INTEGER NOT NULL  -- number of extent rows that name it
);

-- Objects that nothing names any more, to be deleted from the store some time after `since` (seconds). doomed = 1: that is under way, so no commit can
-- take the object back.
CREATE TABLE garbage (
    id     INTEGER PRIMARY KEY,
    since  INTEGER NOT NULL,
    doomed INTEGER NOT NULL,
    bytes  INTEGER NOT NULL,
    plain  INTEGER NOT NULL
);

-- Objects that were deleted from the store less than a day ago: a commit that was long under way cannot name one of them.
CREATE TABLE collected (
    id   INTEGER PRIMARY KEY,
    at_s INTEGER NOT NULL
);

-- The last changing operation of each client that succeeded, for requests that are sent again. Failed ones are not kept: nothing happened, so they
-- may simply be tried again. Rows older than a day are dropped now and then.
CREATE TABLE opdone (
    client NAME    NOT NULL PRIMARY KEY, -- 16 bytes
    seq    INTEGER NOT NULL,
    status INTEGER NOT NULL,
    ino    INTEGER NOT NULL,
    value  INTEGER NOT NULL,
    at_s   INTEGER NOT NULL
) WITHOUT ROWID;
