/* SPDX-License-Identifier: Apache-2.0 */
/* Authorities and certificates for tests of TLS, made where they are needed, valid for an hour.
 * Thread rule: the test's thread. */
#ifndef BT_TESTS_CERTIFICATES_H
#define BT_TESTS_CERTIFICATES_H
#include <stdbool.h>

typedef struct {
    const char *name;   /* of the files: FOLDER/NAME.pem and FOLDER/NAME.key */
    const char *signer; /* the name of an authority in the same folder; NULL: an authority itself */
    const char *hosts;  /* "DNS:localhost,IP:127.0.0.1"; NULL: none */
    bool is_expired;
} bt_certificate_wish;

void bt_certificate_make(const char *folder, const bt_certificate_wish *wish);

#endif
