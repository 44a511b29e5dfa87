#include "meta/schema.h"

#include "meta/meta.h"
#include <stddef.h>

/* The file itself becomes part of the program, so that what one reads is what runs. (Compiled from the root of the tree, as everything.) */
__asm__(".pushsection .rodata\n"
        ".global kfs_schema_sql\n"
        ".hidden kfs_schema_sql\n"
        ".type kfs_schema_sql, @object\n"
        "kfs_schema_sql:\n"
        ".incbin \"meta/schema.sql\"\n"
        ".byte 0\n"
        ".size kfs_schema_sql, . - kfs_schema_sql\n"
        ".popsection\n");

/* Live bytes, and what is kept of garbage. The objects of schema 1 held a frame's bytes as they are, beside a header, an index entry and a trailer of 144
 * bytes; more frames make the guess a few bytes too large, which only makes an object look a little emptier. */
static const char from_1[] =
    "ALTER TABLE object ADD COLUMN plain INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE object ADD COLUMN live INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE garbage ADD COLUMN doomed INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE garbage ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE garbage ADD COLUMN plain INTEGER NOT NULL DEFAULT 0;"
    "CREATE TABLE collected (id INTEGER PRIMARY KEY, at_s INTEGER NOT NULL);"
    "CREATE TABLE live_by_object (id INTEGER PRIMARY KEY, live INTEGER NOT NULL);" /* extent has no index by object */
    "INSERT INTO live_by_object(id,live) SELECT object,sum(len) FROM extent GROUP BY object;"
    "UPDATE object SET live=coalesce((SELECT t.live FROM live_by_object t WHERE t.id=object.id),0);"
    "UPDATE object SET plain=CASE WHEN live>bytes-144 THEN live ELSE bytes-144 END;"
    "DROP TABLE live_by_object;";

/* steps[v]: from schema v to v + 1. */
static const char *const steps[KFS_META_SCHEMA + 1] = {[1] = from_1};

const char *kfs_schema_upgrade(uint32_t from)
{
    return from < KFS_META_SCHEMA ? steps[from] : NULL;
}
