/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/sysfsread.h"

#include "core/alloc.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

__attribute__((format(printf, 2, 0))) static bool join(const char *root, const char *path,
                                                       va_list args, char full[BT_SYSFS_PATH_BYTES])
{
    int used = snprintf(full, BT_SYSFS_PATH_BYTES, "%s/", root);
    if (used < 0 || used >= BT_SYSFS_PATH_BYTES)
        return false;
    size_t left = BT_SYSFS_PATH_BYTES - (size_t)used;
    int n = vsnprintf(full + used, left, path, args);
    return n >= 0 && (size_t)n < left;
}

#define JOIN(full, root, path)                     \
    char full[BT_SYSFS_PATH_BYTES];                \
    va_list args;                                  \
    va_start(args, path);                          \
    bool is_joined = join(root, path, args, full); \
    va_end(args)

/* Up to bytes of a regular file; -1 when there is none. */
static ssize_t read_some(const char *full, char *buffer, size_t bytes)
{
    int fd = open(full, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    struct stat facts;
    ssize_t used = fstat(fd, &facts) == 0 && S_ISREG(facts.st_mode) ? 0 : -1;
    while (used >= 0 && (size_t)used < bytes) {
        ssize_t n = read(fd, buffer + used, bytes - (size_t)used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            used = n < 0 ? -1 : used;
            break;
        }
        used += n;
    }
    close(fd);
    return used;
}

static bool read_line(const char *full, char *text, size_t bytes)
{
    char line[512];
    ssize_t n = read_some(full, line, sizeof(line));
    if (n < 0)
        return false;
    size_t end = 0, start = 0;
    while (end < (size_t)n && line[end] != '\n' && line[end] != '\0')
        end++;
    if (end == sizeof(line))
        return false;
    while (start < end && isspace((unsigned char)line[start]))
        start++;
    while (end > start && isspace((unsigned char)line[end - 1]))
        end--;
    if (end - start >= bytes)
        return false;
    for (size_t i = start; i < end; i++)
        text[i - start] = isprint((unsigned char)line[i]) ? line[i] : '?';
    text[end - start] = '\0';
    return true;
}

bool bt_sysfs_text(const char *root, char *text, size_t bytes, const char *path, ...)
{
    JOIN(full, root, path);
    text[0] = '\0';
    return is_joined && read_line(full, text, bytes);
}

bool bt_sysfs_number(const char *root, int64_t *value, const char *path, ...)
{
    JOIN(full, root, path);
    char text[64], *end;
    if (!is_joined || !read_line(full, text, sizeof(text)) || text[0] == '\0')
        return false;
    errno = 0;
    long long number = strtoll(text, &end, 0);
    if (errno != 0 || *end != '\0')
        return false;
    *value = number;
    return true;
}

char *bt_sysfs_file(const char *root, const char *path, ...)
{
    JOIN(full, root, path);
    char *buffer = is_joined ? bt_calloc(1, BT_SYSFS_FILE_BYTES + 1) : NULL;
    ssize_t n = buffer != NULL ? read_some(full, buffer, BT_SYSFS_FILE_BYTES) : -1;
    if (n < 0) {
        bt_free(buffer);
        return NULL;
    }
    buffer[n] = '\0';
    return buffer;
}

bool bt_sysfs_exists(const char *root, const char *path, ...)
{
    JOIN(full, root, path);
    struct stat facts;
    return is_joined && stat(full, &facts) == 0;
}

bool bt_sysfs_is_open(const char *root, const char *path, ...)
{
    JOIN(full, root, path);
    return is_joined && access(full, R_OK | W_OK) == 0;
}

static bool is_plain(const char *name)
{
    size_t n = strlen(name);
    if (n == 0 || n >= BT_SYSFS_NAME_BYTES || name[0] == '.')
        return false;
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)name[i]) && strchr("._:-@", name[i]) == NULL)
            return false;
    return true;
}

static int compare_names(const void *a, const void *b)
{
    return strverscmp(a, b);
}

/* Room for one more; false when there is none. */
static bool grow(bt_sysfs_list *list, uint32_t *capacity)
{
    if (list->n < *capacity)
        return true;
    uint32_t wanted = *capacity == 0 ? 16 : *capacity * 2;
    void *names = bt_realloc(list->names, wanted, sizeof(*list->names));
    if (names == NULL)
        return false;
    list->names = names;
    *capacity = wanted;
    return true;
}

void bt_sysfs_names(const char *root, bt_sysfs_list *list, const char *path, ...)
{
    JOIN(full, root, path);
    *list = (bt_sysfs_list){0};
    DIR *folder = is_joined ? opendir(full) : NULL;
    if (folder == NULL)
        return;
    uint32_t capacity = 0, n_seen = 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        if (n_seen++ == BT_SYSFS_ENTRIES_MAX + 2) { /* "." and ".." are entries too */
            list->is_cut = true;
            break;
        }
        if (!is_plain(entry->d_name))
            continue;
        if (!grow(list, &capacity)) {
            list->is_cut = true;
            break;
        }
        snprintf(list->names[list->n++], BT_SYSFS_NAME_BYTES, "%s", entry->d_name);
    }
    closedir(folder);
    if (list->n > 1)
        qsort(list->names, list->n, sizeof(*list->names), compare_names);
}

void bt_sysfs_list_free(bt_sysfs_list *list)
{
    bt_free(list->names);
    *list = (bt_sysfs_list){0};
}

bool bt_sysfs_resolve(const char *root, char *target, size_t bytes, const char *path, ...)
{
    JOIN(full, root, path);
    char real_root[PATH_MAX], resolved[PATH_MAX];
    target[0] = '\0';
    if (!is_joined || realpath(root[0] != '\0' ? root : "/", real_root) == NULL ||
        realpath(full, resolved) == NULL)
        return false;
    size_t n = strcmp(real_root, "/") == 0 ? 0 : strlen(real_root);
    if (strncmp(resolved, real_root, n) != 0 || resolved[n] != '/')
        return false;
    size_t left = strlen(resolved + n + 1);
    if (left >= bytes)
        return false;
    memcpy(target, resolved + n + 1, left + 1);
    return true;
}
