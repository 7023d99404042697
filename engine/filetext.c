/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/filetext.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "core/alloc.h"
#include "core/fail.h"

static baton_status read_open(FILE *file, const char *path, size_t max_bytes, char **text_p,
                              size_t *n)
{
    struct stat info;
    if (fstat(fileno(file), &info) != 0)
        return bt_fail_errno(BATON_ERR_IO, errno, "file: stat '%s'", path);
    if (!S_ISREG(info.st_mode))
        return bt_fail(BATON_ERR_INVALID_ARG, "file: '%s' is no regular file", path);
    if (info.st_size < 0 || (uint64_t)info.st_size > max_bytes)
        return bt_fail(BATON_ERR_TOO_LARGE, "file: '%s': wanted at most %zu bytes, found %lld",
                       path, max_bytes, (long long)info.st_size);
    size_t bytes = (size_t)info.st_size;
    char *text = bt_calloc(bytes + 1, 1);
    if (text == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "file: '%s': %zu bytes", path, bytes);
    if (fread(text, 1, bytes, file) != bytes) {
        bt_free(text);
        return bt_fail(BATON_ERR_IO, "file: '%s': wanted %zu bytes, found fewer", path, bytes);
    }
    *text_p = text;
    *n = bytes;
    return BATON_OK;
}

baton_status bt_file_read(const char *path, size_t max_bytes, char **text_p, size_t *n)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        baton_status status = errno == ENOENT   ? BATON_ERR_NOT_FOUND
                              : errno == EACCES ? BATON_ERR_PERMISSION
                                                : BATON_ERR_IO;
        return bt_fail_errno(status, errno, "file: open '%s'", path);
    }
    baton_status status = read_open(file, path, max_bytes, text_p, n);
    fclose(file);
    return status;
}
