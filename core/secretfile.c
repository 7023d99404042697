/* SPDX-License-Identifier: Apache-2.0 */
#include "core/secretfile.h"

#include "core/fail.h"

#include <errno.h>
#include <sys/stat.h>

baton_status bt_secret_file_check(int fd, const char *what, const char *path)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return bt_fail_errno(bt_status_from_errno(errno), errno, "%s %s", what, path);
    if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0)
        return bt_fail(BATON_ERR_PERMISSION,
                       "%s %s: wanted mode 0600, found %04o: others can read the secret; chmod 600 "
                       "it, and make new keys if somebody did",
                       what, path, (unsigned)(info.st_mode & 07777));
    return BATON_OK;
}
