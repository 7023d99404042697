/* SPDX-License-Identifier: Apache-2.0 */
/* NVIDIA's driver library, found at run time: one binary runs with it and without it. Only what we
 * call is declared here, after the public ABI (cuda.h of CUDA 11.3 to 13, whose functions behind
 * these symbols have not changed), so that no CUDA header is needed to build.
 *
 *   bt_cuda_driver_get ── dlopen("libcuda.so.1") ── a table of functions, for the process's life
 *
 * Thread rule: any thread; bt_cuda_driver_use only before the first get, or between tests. */
#ifndef BT_CORE_CUDADRIVER_H
#define BT_CORE_CUDADRIVER_H
#include <baton/status.h>
#include <stdbool.h>

typedef int bt_cu_result;
typedef int bt_cu_device;
typedef unsigned long long bt_cu_address; /* CUdeviceptr; pinned host memory has one too */
typedef struct CUctx_st *bt_cu_context;
typedef struct CUstream_st *bt_cu_stream;
typedef struct CUevent_st *bt_cu_event;
typedef void (*bt_cu_host_function)(void *user_data);

enum { /* CUresult */
       BT_CU_SUCCESS = 0,
       BT_CU_INVALID_VALUE = 1,
       BT_CU_OUT_OF_MEMORY = 2,
       BT_CU_STUB_LIBRARY = 34,
       BT_CU_NO_DEVICE = 100,
       BT_CU_INVALID_CONTEXT = 201,
       BT_CU_NOT_READY = 600,
       BT_CU_ILLEGAL_ADDRESS = 700,
       BT_CU_NOT_SUPPORTED = 801,
       BT_CU_SYSTEM_DRIVER_MISMATCH = 803,
       BT_CU_CAPTURE_UNSUPPORTED = 900,
};
enum { /* CUdevice_attribute, and what the second answers: CUGPUDirectRDMAWritesOrdering */
       BT_CU_DEVICE_FLUSH_WRITES_OPTIONS = 117,
       BT_CU_DEVICE_WRITES_ORDERING = 118,
       BT_CU_FLUSH_WRITES_OPTION_HOST = 1,
       BT_CU_WRITES_ORDERING_OWNER = 100,
       BT_CU_FLUSH_TARGET_CURRENT_CONTEXT = 0,
       BT_CU_FLUSH_TO_OWNER = 100,
};
enum { /* flags and CUpointer_attribute */
       BT_CU_STREAM_NON_BLOCKING = 1,
       BT_CU_EVENT_DISABLE_TIMING = 2,
       BT_CU_HOST_REGISTER_PORTABLE = 1,
       BT_CU_HOST_REGISTER_DEVICEMAP = 2,
       BT_CU_CAPTURE_MODE_RELAXED = 2,
       BT_CU_CAPTURE_STATUS_NONE = 0,
       BT_CU_POINTER_MEMORY_TYPE = 2,
       BT_CU_MEMORY_TYPE_HOST = 1,
       BT_CU_MEMORY_TYPE_DEVICE = 2,
};

/* X(member, symbol, parameters). A symbol's _v2 is the 64-bit version, the only one since 4.0. */
#define BT_CUDA_FUNCTIONS(X)                                                                    \
    X(init, cuInit, (unsigned flags))                                                           \
    X(error_string, cuGetErrorString, (bt_cu_result result, const char **text))                 \
    X(driver_version, cuDriverGetVersion, (int *version))                                       \
    X(device_count, cuDeviceGetCount, (int *n))                                                 \
    X(device_get, cuDeviceGet, (bt_cu_device * device, int ordinal))                            \
    X(device_name, cuDeviceGetName, (char *name, int bytes, bt_cu_device device))               \
    X(device_pci, cuDeviceGetPCIBusId, (char *address, int bytes, bt_cu_device device))         \
    X(device_attribute, cuDeviceGetAttribute, (int *value, int attribute, bt_cu_device device)) \
    X(primary_retain, cuDevicePrimaryCtxRetain, (bt_cu_context * context, bt_cu_device device)) \
    X(primary_release, cuDevicePrimaryCtxRelease_v2, (bt_cu_device device))                     \
    X(context_push, cuCtxPushCurrent_v2, (bt_cu_context context))                               \
    X(context_pop, cuCtxPopCurrent_v2, (bt_cu_context * context))                               \
    X(context_current, cuCtxGetCurrent, (bt_cu_context * context))                              \
    X(context_device, cuCtxGetDevice, (bt_cu_device * device))                                  \
    X(memory_alloc, cuMemAlloc_v2, (bt_cu_address * address, size_t bytes))                     \
    X(memory_free, cuMemFree_v2, (bt_cu_address address))                                       \
    X(host_register, cuMemHostRegister_v2, (void *base, size_t bytes, unsigned flags))          \
    X(host_unregister, cuMemHostUnregister, (void *base))                                       \
    X(pointer_attribute, cuPointerGetAttribute,                                                 \
      (void *value, int attribute, bt_cu_address address))                                      \
    X(copy, cuMemcpy, (bt_cu_address to, bt_cu_address from, size_t bytes))                     \
    X(copy_async, cuMemcpyAsync,                                                                \
      (bt_cu_address to, bt_cu_address from, size_t bytes, bt_cu_stream stream))                \
    X(set_bytes_async, cuMemsetD8Async,                                                         \
      (bt_cu_address to, unsigned char value, size_t bytes, bt_cu_stream stream))               \
    X(stream_create, cuStreamCreate, (bt_cu_stream * stream, unsigned flags))                   \
    X(stream_destroy, cuStreamDestroy_v2, (bt_cu_stream stream))                                \
    X(stream_synchronize, cuStreamSynchronize, (bt_cu_stream stream))                           \
    X(stream_wait_event, cuStreamWaitEvent,                                                     \
      (bt_cu_stream stream, bt_cu_event event, unsigned flags))                                 \
    X(stream_is_capturing, cuStreamIsCapturing, (bt_cu_stream stream, int *status))             \
    X(exchange_capture_mode, cuThreadExchangeStreamCaptureMode, (int *mode))                    \
    X(launch_host_function, cuLaunchHostFunc,                                                   \
      (bt_cu_stream stream, bt_cu_host_function function, void *user_data))                     \
    X(event_create, cuEventCreate, (bt_cu_event * event, unsigned flags))                       \
    X(event_destroy, cuEventDestroy_v2, (bt_cu_event event))                                    \
    X(event_record, cuEventRecord, (bt_cu_event event, bt_cu_stream stream))                    \
    X(event_query, cuEventQuery, (bt_cu_event event))
/* As above; NULL where the driver is older (before 11.3). */
#define BT_CUDA_OPTIONAL_FUNCTIONS(X) \
    X(flush_writes, cuFlushGPUDirectRDMAWrites, (int target, int scope))

typedef struct {
#define BT_CUDA_MEMBER(member, symbol, parameters) bt_cu_result(*member) parameters;
    BT_CUDA_FUNCTIONS(BT_CUDA_MEMBER)
    BT_CUDA_OPTIONAL_FUNCTIONS(BT_CUDA_MEMBER)
#undef BT_CUDA_MEMBER
    bool is_given; /* by bt_cuda_driver_use: kernels, which use the machine's own, do not know it */
} bt_cuda_driver;

/* The driver, initialised. It is looked for once; later calls get the same answer. Errors:
 * UNSUPPORTED (no driver library, one that is too old, or one that does not start; the text says
 * which and what to do). */
baton_status bt_cuda_driver_get(const bt_cuda_driver **driver_p);
/* For tests: the library to open instead (NULL: the usual one); what was found before is forgotten.
 * path is borrowed. */
void bt_cuda_driver_use(const char *path);

/* OK, IN_PROGRESS (NOT_READY), NO_MEMORY, UNSUPPORTED, INVALID_ARG or IO. */
baton_status bt_status_from_cuda(bt_cu_result result);
/* bt_fail with the status's meaning and the driver's text behind ours. */
__attribute__((format(printf, 3, 4))) baton_status
bt_fail_cuda(const bt_cuda_driver *driver, bt_cu_result result, const char *format, ...);

#endif
