/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/apikeys.h"

#include "core/alloc.h"
#include "core/fail.h"
#include "core/secretfile.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { DIGEST_BYTES = 32 };

typedef struct {
    uint8_t salt[crypto_generichash_KEYBYTES];
    uint8_t (*digests)[DIGEST_BYTES]; /* [n], room for one more than may be */
    size_t n;
} key_set;

struct bt_apikeys {
    pthread_rwlock_t lock; /* guards set */
    key_set set;
    char *path;
};

static void digest(const key_set *set, const char *key, size_t n, uint8_t out[DIGEST_BYTES])
{
    crypto_generichash(out, DIGEST_BYTES, (const uint8_t *)key, n, set->salt, sizeof(set->salt));
}

/* One line of the file, without its end. */
static baton_status take_line(const char *path, size_t number, const char *line, key_set *set)
{
    size_t n = strlen(line);
    if (n == 0 || line[0] == '#')
        return BATON_OK;
    if (n > BT_API_KEY_BYTES_MAX || strpbrk(line, " \t") != NULL)
        return bt_fail(BATON_ERR_CONFIG,
                       "API keys %s, line %zu: wanted one key of at most %d bytes without white "
                       "space",
                       path, number, BT_API_KEY_BYTES_MAX);
    if (set->n == BT_API_KEYS_MAX)
        return bt_fail(BATON_ERR_CONFIG, "API keys %s: wanted at most %d keys", path,
                       BT_API_KEYS_MAX);
    digest(set, line, n, set->digests[set->n++]);
    return BATON_OK;
}

/* A comment may be longer than any key. */
static void skip_rest(const char *line, FILE *file)
{
    int c = strchr(line, '\n') == NULL ? 0 : '\n';
    while (c != '\n' && c != EOF)
        c = getc(file);
}

static baton_status read_lines(const char *path, FILE *file, key_set *set)
{
    char line[BT_API_KEY_BYTES_MAX + 3];
    baton_status status = BATON_OK;
    for (size_t number = 1; status == BATON_OK && fgets(line, sizeof(line), file) != NULL;
         number++) {
        if (line[0] == '#')
            skip_rest(line, file);
        line[strcspn(line, "\r\n")] = '\0';
        status = take_line(path, number, line, set);
    }
    sodium_memzero(line, sizeof(line));
    if (status == BATON_OK && ferror(file))
        return bt_fail(BATON_ERR_IO, "API keys %s: cannot be read", path);
    if (status == BATON_OK && set->n == 0)
        return bt_fail(BATON_ERR_CONFIG, "API keys %s: wanted a key a line, found none", path);
    return status;
}

static baton_status load(const char *path, key_set *set)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return bt_fail_errno(bt_status_from_errno(errno), errno, "API keys %s", path);
    baton_status status = bt_secret_file_check(fd, "API keys", path);
    FILE *file = status == BATON_OK ? fdopen(fd, "r") : NULL;
    set->digests = bt_calloc(BT_API_KEYS_MAX, sizeof(*set->digests));
    randombytes_buf(set->salt, sizeof(set->salt));
    if (status == BATON_OK && (file == NULL || set->digests == NULL))
        status = bt_fail(BATON_ERR_NO_MEMORY, "API keys %s", path);
    if (status == BATON_OK)
        status = read_lines(path, file, set);
    if (file != NULL)
        fclose(file);
    else
        close(fd);
    if (status != BATON_OK)
        bt_free(set->digests);
    return status;
}

baton_status bt_apikeys_create(const char *path, bt_apikeys **keys_p)
{
    bt_apikeys *keys = bt_calloc(1, sizeof(*keys));
    char *copy = bt_strdup(path);
    baton_status status = BATON_OK;
    if (keys == NULL || copy == NULL)
        status = bt_fail(BATON_ERR_NO_MEMORY, "API keys");
    else
        status = load(path, &keys->set);
    if (status != BATON_OK) {
        bt_free(copy);
        bt_free(keys);
        return status;
    }
    pthread_rwlock_init(&keys->lock, NULL);
    keys->path = copy;
    *keys_p = keys;
    return BATON_OK;
}

baton_status bt_apikeys_reload(bt_apikeys *keys)
{
    key_set loaded = {0};
    BATON_TRY(load(keys->path, &loaded));
    pthread_rwlock_wrlock(&keys->lock);
    key_set old = keys->set;
    keys->set = loaded;
    pthread_rwlock_unlock(&keys->lock);
    bt_free(old.digests);
    return BATON_OK;
}

bool bt_apikeys_admit(bt_apikeys *keys, const char *authorization)
{
    static const char scheme[] = "Bearer ";
    uint8_t shown[DIGEST_BYTES];
    int n_found = 0;
    if (authorization == NULL || strncasecmp(authorization, scheme, sizeof(scheme) - 1) != 0)
        return false;
    const char *key = authorization + sizeof(scheme) - 1;
    size_t n = strlen(key);
    if (n == 0 || n > BT_API_KEY_BYTES_MAX)
        return false;
    pthread_rwlock_rdlock(&keys->lock);
    digest(&keys->set, key, n, shown);
    for (size_t i = 0; i < keys->set.n; i++)
        n_found += sodium_memcmp(shown, keys->set.digests[i], sizeof(shown)) == 0;
    pthread_rwlock_unlock(&keys->lock);
    return n_found > 0;
}

void bt_apikeys_destroy(bt_apikeys *keys)
{
    if (keys == NULL)
        return;
    pthread_rwlock_destroy(&keys->lock);
    bt_free(keys->set.digests);
    bt_free(keys->path);
    bt_free(keys);
}
