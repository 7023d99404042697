/* SPDX-License-Identifier: Apache-2.0 */
/* Formats: proc(5), cgroups(7), Documentation/admin-guide/{cgroup-v2,mm/hugetlbpage} of the kernel.
 */
#include "transport/hostlimits.h"

#include "core/alloc.h"
#include "transport/sysfsread.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

enum { CAPABILITY_IPC_LOCK = 14, CGROUP_DEPTH_MAX = 32 };

/* The text behind `name` at the start of a line, without blanks; NULL: no such line. */
static const char *line_of(const char *text, const char *name)
{
    size_t n = strlen(name);
    for (const char *line = text; line != NULL && *line != '\0';) {
        if (strncmp(line, name, n) == 0)
            return line + n + strspn(line + n, " \t");
        line = strchr(line, '\n');
        line += line != NULL;
    }
    return NULL;
}

static bool parse_u64(const char *text, int base, uint64_t *value)
{
    if (!isxdigit((unsigned char)*text))
        return false;
    *value = strtoull(text, NULL, base);
    return true;
}

static uint64_t times_kib(uint64_t kib)
{
    uint64_t bytes;
    return bt_mul_u64(kib, 1024, &bytes) ? bytes : BT_NO_LIMIT;
}

/* "Max locked memory         8388608              8388608              bytes" */
static void read_memlock(const char *root, bt_host_limits *limits)
{
    char *text = bt_sysfs_file(root, "proc/self/limits");
    const char *line = text != NULL ? line_of(text, "Max locked memory") : NULL;
    if (line != NULL && strncmp(line, "unlimited", 9) == 0) {
        limits->has_memlock = true;
        limits->memlock_bytes = BT_NO_LIMIT;
    } else if (line != NULL) {
        limits->has_memlock = parse_u64(line, 10, &limits->memlock_bytes);
    }
    bt_free(text);
    text = bt_sysfs_file(root, "proc/self/status");
    line = text != NULL ? line_of(text, "CapEff:") : NULL;
    uint64_t capabilities;
    limits->may_lock_all = line != NULL && parse_u64(line, 16, &capabilities) &&
                           (capabilities >> CAPABILITY_IPC_LOCK & 1) != 0;
    bt_free(text);
}

static void read_memory(const char *root, bt_host_limits *limits)
{
    char *text = bt_sysfs_file(root, "proc/meminfo");
    const char *line = text != NULL ? line_of(text, "MemTotal:") : NULL;
    uint64_t kib;
    if (line != NULL && parse_u64(line, 10, &kib))
        limits->memory_bytes = times_kib(kib);
    bt_free(text);
}

static uint64_t read_count(const char *root, const char *folder, const char *file)
{
    int64_t value;
    bool is_there = bt_sysfs_number(root, &value, "sys/kernel/mm/hugepages/%s/%s", folder, file);
    return is_there && value > 0 ? (uint64_t)value : 0;
}

/* The chosen one of "always [madvise] never". */
static void read_choice(const char *root, const char *file, char *choice, size_t bytes)
{
    char text[128];
    bt_sysfs_text(root, text, sizeof(text), "sys/kernel/mm/transparent_hugepage/%s", file);
    char *from = strchr(text, '['), *to = from != NULL ? strchr(from, ']') : NULL;
    if (to != NULL)
        snprintf(choice, bytes, "%.*s", (int)(to - from - 1), from + 1);
}

static int by_size(const void *a, const void *b)
{
    const bt_huge_pages *x = a, *y = b;
    return (x->page_bytes > y->page_bytes) - (x->page_bytes < y->page_bytes);
}

static void read_huge_pages(const char *root, bt_host_limits *limits)
{
    bt_sysfs_list list;
    bt_sysfs_names(root, &list, "sys/kernel/mm/hugepages");
    for (uint32_t i = 0; i < list.n && limits->n_huge < BT_HUGE_SIZES_MAX; i++) {
        uint64_t kib;
        const char *name = list.names[i];
        if (strncmp(name, "hugepages-", 10) != 0 || !parse_u64(name + 10, 10, &kib) || kib == 0)
            continue;
        limits->huge[limits->n_huge++] =
            (bt_huge_pages){.page_bytes = times_kib(kib),
                            .n_total = read_count(root, name, "nr_hugepages"),
                            .n_free = read_count(root, name, "free_hugepages")};
    }
    bt_sysfs_list_free(&list);
    qsort(limits->huge, limits->n_huge, sizeof(limits->huge[0]), by_size);
    read_choice(root, "enabled", limits->thp, sizeof(limits->thp));
    read_choice(root, "shmem_enabled", limits->thp_shmem, sizeof(limits->thp_shmem));
}

static void read_shm(const char *root, bt_host_limits *limits)
{
    char path[BT_SYSFS_PATH_BYTES];
    struct statvfs facts;
    snprintf(path, sizeof(path), "%s/dev/shm", root);
    if (statvfs(path, &facts) != 0)
        return;
    limits->has_shm = true;
    if (!bt_mul_u64(facts.f_blocks, facts.f_frsize, &limits->shm_bytes))
        limits->shm_bytes = BT_NO_LIMIT;
    if (!bt_mul_u64(facts.f_bavail, facts.f_frsize, &limits->shm_free_bytes))
        limits->shm_free_bytes = BT_NO_LIMIT;
}

/* This process's place in a hierarchy: the path behind "<number>:<controllers>:", where controllers
 * has the word (version 1), or is empty (version 2, word ""). */
static bool cgroup_path(const char *text, const char *word, char *path, size_t bytes)
{
    for (const char *line = text; line != NULL && *line != '\0';) {
        const char *names = strchr(line, ':'), *end = line + strcspn(line, "\n");
        const char *at = names != NULL && names < end ? strchr(names + 1, ':') : NULL;
        if (at != NULL && at < end) {
            char controllers[128];
            snprintf(controllers, sizeof(controllers), ",%.*s,", (int)(at - names - 1), names + 1);
            char wanted[32];
            snprintf(wanted, sizeof(wanted), ",%s,", word);
            int n = snprintf(path, bytes, "%.*s", (int)(end - at - 1), at + 1);
            if (strstr(controllers, wanted) != NULL && n > 0 && (size_t)n < bytes)
                return strstr(path, "..") == NULL; /* out of the namespace: not to be seen */
        }
        line = *end == '\n' ? end + 1 : NULL;
    }
    return false;
}

/* The smallest value of `file` from path up to the mount; "max" and what is missing is no limit. */
static uint64_t smallest_limit(const char *root, const char *mount, const char *path,
                               const char *file)
{
    char at[512];
    uint64_t smallest = BT_NO_LIMIT;
    snprintf(at, sizeof(at), "%s", path);
    for (uint32_t depth = 0; depth < CGROUP_DEPTH_MAX; depth++) {
        int64_t value;
        if (bt_sysfs_number(root, &value, "sys/fs/cgroup%s%s/%s", mount, at, file) && value >= 0 &&
            (uint64_t)value < smallest)
            smallest = (uint64_t)value;
        char *slash = strrchr(at, '/');
        if (slash == NULL)
            break;
        *slash = '\0';
    }
    return smallest;
}

/* "200000 100000": microseconds of each period; "max": no limit. */
static double cpus_of(const char *text)
{
    char *end;
    double quota = strtod(text, &end), period = strtod(end, NULL);
    return quota > 0 && period > 0 ? quota / period : 0;
}

static void read_cgroup_2(const char *root, const char *path, bt_host_limits *limits)
{
    char text[128];
    uint64_t bytes = smallest_limit(root, "", path, "memory.max");
    if (bytes < limits->cgroup_memory_bytes)
        limits->cgroup_memory_bytes = bytes;
    if (bt_sysfs_text(root, text, sizeof(text), "sys/fs/cgroup%s/cpu.max", path))
        limits->cgroup_cpus = cpus_of(text);
    /* "mlx5_0 hca_handle=2 hca_object=max" */
    if (bt_sysfs_text(root, text, sizeof(text), "sys/fs/cgroup%s/rdma.max", path) &&
        strpbrk(text, "=") != NULL && strpbrk(strchr(text, '='), "0123456789") != NULL)
        snprintf(limits->cgroup_rdma, sizeof(limits->cgroup_rdma), "%s", text);
}

static void read_cgroup(const char *root, bt_host_limits *limits)
{
    char path[512];
    char *text = bt_sysfs_file(root, "proc/self/cgroup");
    limits->cgroup_memory_bytes = BT_NO_LIMIT;
    if (text != NULL && cgroup_path(text, "memory", path, sizeof(path))) {
        uint64_t bytes = smallest_limit(root, "/memory", path, "memory.limit_in_bytes");
        /* Version 1 writes "no limit" as the largest number of whole pages. */
        if (bytes < UINT64_C(1) << 60)
            limits->cgroup_memory_bytes = bytes;
    }
    if (text != NULL && cgroup_path(text, "", path, sizeof(path)))
        read_cgroup_2(root, strcmp(path, "/") == 0 ? "" : path, limits);
    bt_free(text);
}

/* "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build ..." */
static void read_nvidia(const char *root, bt_host_limits *limits)
{
    static const char *const modules[] = {"nvidia_peermem", "nv_peer_mem"};
    char line[256];
    if (bt_sysfs_text(root, line, sizeof(line), "proc/driver/nvidia/version")) {
        limits->nvidia_driver_is_open = strstr(line, "Open Kernel Module") != NULL;
        const char *at = strstr(line, "  ");
        if (at != NULL)
            snprintf(limits->nvidia_driver, sizeof(limits->nvidia_driver), "%.*s",
                     (int)strcspn(at + 2, " "), at + 2);
    }
    if (limits->nvidia_driver[0] == '\0')
        bt_sysfs_text(root, limits->nvidia_driver, sizeof(limits->nvidia_driver),
                      "sys/module/nvidia/version");
    for (size_t i = 0; i < sizeof(modules) / sizeof(modules[0]) && limits->peermem[0] == '\0'; i++)
        if (bt_sysfs_exists(root, "sys/module/%s", modules[i]))
            snprintf(limits->peermem, sizeof(limits->peermem), "%s", modules[i]);
}

static void read_kernel(const char *root, bt_host_limits *limits)
{
    int64_t scope;
    unsigned major = 0, minor = 0;
    bt_sysfs_text(root, limits->kernel, sizeof(limits->kernel), "proc/sys/kernel/osrelease");
    if (sscanf(limits->kernel, "%4u.%4u", &major, &minor) == 2)
        limits->kernel_has_dmabuf_rdma = major > 5 || (major == 5 && minor >= 12);
    limits->ptrace_scope = -1;
    if (bt_sysfs_number(root, &scope, "proc/sys/kernel/yama/ptrace_scope") && scope >= 0 &&
        scope <= 3)
        limits->ptrace_scope = (int)scope;
}

void bt_host_limits_read(const char *root, bt_host_limits *limits)
{
    *limits = (bt_host_limits){0};
    read_kernel(root, limits);
    read_memory(root, limits);
    read_memlock(root, limits);
    read_huge_pages(root, limits);
    read_shm(root, limits);
    read_cgroup(root, limits);
    read_nvidia(root, limits);
}

bool bt_host_has_gpudirect(const bt_host_limits *limits)
{
    bool has_dmabuf = limits->nvidia_driver_is_open && limits->kernel_has_dmabuf_rdma;
    return limits->peermem[0] != '\0' || has_dmabuf;
}
