#include "base/extent.h"

#include <stdlib.h>
#include <string.h>

void kfs_content_release(struct kfs_content *c)
{
    if (!c)
        return;
    free(c->inline_data);
    free(c->extents);
    memset(c, 0, sizeof *c);
}

void kfs_content_delta_release(struct kfs_content_delta *d)
{
    if (!d)
        return;
    free(d->extents);
    free(d->objects);
    free(d->object_bytes);
    /* Not the inline bytes: clearing 4 KiB a commit would be the dearest part of this call. */
    d->extents = NULL;
    d->objects = NULL;
    d->object_bytes = NULL;
    d->extent_count = d->object_count = 0;
    d->inline_len = 0;
    d->changed = d->to_inline = false;
}
