/* meta/schema.h — the tables, and how older ones become them
 *
 * What     The text of meta/schema.sql, and one upgrade script a version step.
 * Model    KFS_META_SCHEMA and schema.sql change together; whoever raises it adds the step from the version before.
 */
#ifndef KFS_META_SCHEMA_H
#define KFS_META_SCHEMA_H

#include <stdint.h>

/* PRAGMA application_id of a KFS database: "KFS1". */
#define KFS_META_APPLICATION_ID 0x4b465331

extern const char kfs_schema_sql[]; /* NUL-terminated */

/* SQL that turns schema `from` into from + 1; NULL: there is no such step. */
const char *kfs_schema_upgrade(uint32_t from);

#endif
