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

/* steps[v]: from schema v to v + 1. */
static const char *const steps[KFS_META_SCHEMA + 1] = {NULL};

const char *kfs_schema_upgrade(uint32_t from)
{
    return from < KFS_META_SCHEMA ? steps[from] : NULL;
}
