/* SPDX-License-Identifier: Apache-2.0 */
/* Files that hold a secret. Thread rule: any thread. */
#ifndef BT_CORE_SECRETFILE_H
#define BT_CORE_SECRETFILE_H
#include <baton/status.h>

/* Nobody but its owner may read the open file. what: "key file". Errors: PERMISSION, IO. */
baton_status bt_secret_file_check(int fd, const char *what, const char *path);

#endif
