/* SPDX-License-Identifier: Apache-2.0 */
#include "core/cudadriver.h"

#include "core/fail.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>

static struct {
    pthread_mutex_t lock;
    const char *path;
    void *library; /* never closed: callers keep the table */
    bool was_tried;
    baton_status status;
    char text[BT_ERROR_TEXT_BYTES]; /* of the failure, for later calls */
    bt_cuda_driver driver;
} found = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ISO C has no cast from an object pointer to a function pointer; POSIX says that the bytes are
 * the same. */
static void *set_function(void *function, const char *symbol)
{
    void *address = dlsym(found.library, symbol);
    *(void **)function = address;
    return address;
}

static baton_status find_functions(const char *path)
{
#define FIND(member, symbol, parameters)                                                     \
    if (set_function(&found.driver.member, #symbol) == NULL)                                 \
        return bt_fail(BATON_ERR_UNSUPPORTED,                                                \
                       "cuda: wanted " #symbol " in %s, found none; install a newer driver", \
                       path);
#define FIND_OPTIONAL(member, symbol, parameters) set_function(&found.driver.member, #symbol);
    BT_CUDA_FUNCTIONS(FIND)
    BT_CUDA_OPTIONAL_FUNCTIONS(FIND_OPTIONAL)
#undef FIND
#undef FIND_OPTIONAL
    return BATON_OK;
}

static baton_status load(void)
{
    const char *path = found.path != NULL ? found.path : "libcuda.so.1";
    found.driver.is_given = found.path != NULL;
    found.library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (found.library == NULL)
        return bt_fail(BATON_ERR_UNSUPPORTED,
                       "cuda: wanted NVIDIA's driver, found none (%s); install it, or give the "
                       "container the GPU (--gpus)",
                       dlerror());
    BATON_TRY(find_functions(path));
    bt_cu_result result = found.driver.init(0);
    if (result != BT_CU_SUCCESS) {
        bt_fail_cuda(&found.driver, result, "wanted %s to start; nvidia-smi says more", path);
        return BATON_ERR_UNSUPPORTED;
    }
    return BATON_OK;
}

baton_status bt_cuda_driver_get(const bt_cuda_driver **driver_p)
{
    pthread_mutex_lock(&found.lock);
    if (!found.was_tried) {
        found.was_tried = true;
        found.status = load();
        snprintf(found.text, sizeof(found.text), "%s",
                 found.status != BATON_OK ? baton_last_error() : "");
    }
    baton_status status = found.status;
    if (status != BATON_OK)
        bt_fail(status, "%s", found.text);
    pthread_mutex_unlock(&found.lock);
    if (status == BATON_OK)
        *driver_p = &found.driver;
    return status;
}

void bt_cuda_driver_use(const char *path)
{
    pthread_mutex_lock(&found.lock);
    found.path = path;
    found.was_tried = false;
    pthread_mutex_unlock(&found.lock);
}

baton_status bt_status_from_cuda(bt_cu_result result)
{
    switch (result) {
    case BT_CU_SUCCESS:
        return BATON_OK;
    case BT_CU_NOT_READY:
        return BATON_IN_PROGRESS;
    case BT_CU_OUT_OF_MEMORY:
        return BATON_ERR_NO_MEMORY;
    case BT_CU_INVALID_VALUE:
        return BATON_ERR_INVALID_ARG;
    case BT_CU_STUB_LIBRARY:
    case BT_CU_NO_DEVICE:
    case BT_CU_NOT_SUPPORTED:
    case BT_CU_SYSTEM_DRIVER_MISMATCH:
        return BATON_ERR_UNSUPPORTED;
    default:
        return BATON_ERR_IO;
    }
}

baton_status bt_fail_cuda(const bt_cuda_driver *driver, bt_cu_result result, const char *format,
                          ...)
{
    char wanted[256];
    const char *text = NULL;
    va_list args;
    va_start(args, format);
    vsnprintf(wanted, sizeof(wanted), format, args);
    va_end(args);
    if (driver->error_string(result, &text) != BT_CU_SUCCESS || text == NULL)
        text = "an error that the driver does not know";
    return bt_fail(bt_status_from_cuda(result), "cuda: %s, found: %s (%d)", wanted, text, result);
}
