/* For the tests: a disk over a block of theirs. */
#ifndef FUNCTION_DISK_PRIVATE_H
#define FUNCTION_DISK_PRIVATE_H

#include <function/disk.h>

#include "block.h"

/*
 * As bh_disk_create(), over a block, which is the disk's from then on; on error (0 or
 * -ENOMEM) it stays the caller's. The configuration is taken as valid, path serves
 * for the serial number only.
 */
int bh_disk_create_on(struct bh_block *block, const struct bh_disk_config *config, struct bh_device **ret);

#endif
