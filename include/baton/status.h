/* SPDX-License-Identifier: Apache-2.0 */
/* Status codes, and the text that says what went wrong.
 *
 * A function that fails returns a negative status and leaves a text for people, "noun: what was
 * wanted, what was found", in a buffer of the calling thread. The codes are contract; the texts
 * are not and must not be parsed.
 *
 * Thread rule: any thread. */
#ifndef BATON_STATUS_H
#define BATON_STATUS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define BATON_BEGIN_DECLS extern "C" {
#define BATON_END_DECLS }
#else
#define BATON_BEGIN_DECLS
#define BATON_END_DECLS
#endif
#define BATON_API __attribute__((visibility("default")))

BATON_BEGIN_DECLS

/* X(name, value, text). Values never change once released. */
#define BATON_STATUS_LIST(X)                                             \
    X(OK, 0, "success")                                                  \
    X(IN_PROGRESS, 1, "not finished yet")                                \
    X(ERR_INVALID_ARG, -1, "invalid argument")                           \
    X(ERR_NO_MEMORY, -2, "out of memory")                                \
    X(ERR_NO_PAGES, -3, "not enough free pages")                         \
    X(ERR_NOT_FOUND, -4, "not found")                                    \
    X(ERR_STATE, -5, "not allowed in this state")                        \
    X(ERR_BUSY, -6, "busy")                                              \
    X(ERR_TOO_LARGE, -7, "too large")                                    \
    X(ERR_OUT_OF_RANGE, -8, "out of range")                              \
    X(ERR_UNSUPPORTED, -9, "not supported")                              \
    X(ERR_CONFIG, -10, "bad configuration")                              \
    X(ERR_IO, -11, "input/output error")                                 \
    X(ERR_CORRUPT, -12, "corrupt data")                                  \
    X(ERR_ADDRESS_IN_USE, -13, "address already in use")                 \
    X(ERR_PERMISSION, -14, "not permitted")                              \
    X(ERR_BAD_MESSAGE, -15, "malformed message")                         \
    X(ERR_VERSION_MISMATCH, -16, "peer speaks another protocol version") \
    X(ERR_LAYOUT_MISMATCH, -17, "peer has another KV layout")            \
    X(ERR_UNREACHABLE, -18, "peer is unreachable")                       \
    X(ERR_PEER_GONE, -19, "peer process has exited")                     \
    X(ERR_PEER_SILENT, -20, "peer has gone silent")                      \
    X(ERR_PEER_RESTARTED, -21, "peer has restarted")                     \
    X(ERR_TRANSPORT, -22, "transport error")                             \
    X(ERR_CONNECT_TIMEOUT, -23, "connect timed out")                     \
    X(ERR_INIT_TIMEOUT, -24, "init timed out")                           \
    X(ERR_ALLOC_TIMEOUT, -25, "alloc timed out")                         \
    X(ERR_PUT_TIMEOUT, -26, "put timed out")                             \
    X(ERR_FLUSH_TIMEOUT, -27, "flush timed out")                         \
    X(ERR_COMMIT_TIMEOUT, -28, "commit timed out")                       \
    X(ERR_DEADLINE, -29, "deadline of the request has passed")           \
    X(ERR_REFUSED, -30, "refused by the peer")                           \
    X(ERR_REVOKED, -31, "ticket revoked")                                \
    X(ERR_LEASE_EXPIRED, -32, "lease expired")                           \
    X(ERR_DIGEST_MISMATCH, -33, "digest does not match the bytes")       \
    X(ERR_CANCELED, -34, "canceled")                                     \
    X(ERR_CLOSED, -35, "closed")                                         \
    X(ERR_AUTH, -36, "authentication failed")                            \
    X(ERR_STALE, -37, "stale epoch, generation or ticket")               \
    X(ERR_RANK_FAILED, -38, "another rank of the request failed")        \
    X(ERR_OVERLOADED, -39, "overloaded, try again later")                \
    X(ERR_PATH, -40, "no path to the peer is as good as required")       \
    X(ERR_GPU_TIMEOUT, -41, "the GPU did not finish a copy in time")     \
    X(ERR_DRAIN_TIMEOUT, -42, "the sender did not say in time that its writes have ended")

typedef enum {
#define BATON_STATUS_ENUM(name, value, text) BATON_##name = (value),
    BATON_STATUS_LIST(BATON_STATUS_ENUM)
#undef BATON_STATUS_ENUM
} baton_status;

/* The code's fixed text, "unknown status" for a value outside the list. Never NULL. */
BATON_API const char *baton_strerror(baton_status status);
/* The code's name without prefix, "ERR_NO_PAGES". Never NULL. */
BATON_API const char *baton_status_name(baton_status status);
/* Detail of the last failure in this thread; "" when there was none. Borrowed until the thread's
 * next failing call. */
BATON_API const char *baton_last_error(void);
/* Version of the library, "0.1.0". */
BATON_API const char *baton_version(void);

BATON_END_DECLS
#endif
