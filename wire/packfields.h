/* SPDX-License-Identifier: Apache-2.0 */
/* Flat maps with known keys, read into a struct and written from it by one table, so that both
 * directions and the limits cannot drift apart.
 * Thread rule: owner thread. */
#ifndef BT_WIRE_PACKFIELDS_H
#define BT_WIRE_PACKFIELDS_H
#include "wire/packreader.h"
#include "wire/packwriter.h"

enum { BT_FIELDS_MAX = 64 };

typedef enum {
    BT_FIELD_U32,  /* uint32_t; min and max bound the value */
    BT_FIELD_U64,  /* uint64_t; min and max bound the value */
    BT_FIELD_I32,  /* int32_t; not bounded */
    BT_FIELD_I64,  /* int64_t; not bounded */
    BT_FIELD_BOOL, /* bool */
    BT_FIELD_F64,  /* double */
    BT_FIELD_STR,  /* bt_blob; min and max bound the bytes */
    BT_FIELD_NAME, /* as STR, without control characters (below 0x20, and 0x7f) */
    BT_FIELD_BIN,  /* bt_blob; min and max bound the bytes */
    BT_FIELD_RAW,  /* bt_blob: the value's encoded bytes, to be opened later */
    BT_FIELD_CALL, /* read() and write() handle the value */
} bt_field_type;

typedef struct {
    const char *name;
    bt_field_type type;
    bool optional;     /* when reading; all fields of a table are written */
    size_t offset;     /* of the value in the struct */
    uint64_t min, max; /* max 0: no upper bound but the type's and the reader's limits */
    /* BT_FIELD_CALL: reads exactly one value into, or writes it from, the struct + offset. */
    baton_status (*read)(bt_packreader *reader, void *value);
    void (*write)(bt_packwriter *writer, const void *value);
} bt_field;

typedef struct {
    uint64_t present;   /* bit i: fields[i] was in the map */
    uint32_t n_unknown; /* keys of no field; skipped, so that newer peers may add some */
} bt_field_result;

/* Reads one map, its keys in any order, into the struct at out. Members of absent optional fields
 * are left as they are. result may be NULL. n_fields <= BT_FIELDS_MAX. Errors: BAD_MESSAGE. */
baton_status bt_unpack_fields(bt_packreader *reader, const bt_field *fields, size_t n_fields,
                              void *out, bt_field_result *result);

/* Writes n_fields keys and values, without the map's head. A value out of its field's range makes
 * bt_pack_finish fail with INVALID_ARG. */
void bt_pack_fields(bt_packwriter *writer, const bt_field *fields, size_t n_fields, const void *in);

#endif
