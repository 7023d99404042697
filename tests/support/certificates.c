/* SPDX-License-Identifier: Apache-2.0 */
#include "support/certificates.h"

#include "support/test.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>

enum { HOUR_S = 3600, PATH_BYTES = 256 };

static FILE *open_file(const char *folder, const char *name, const char *ending, const char *mode)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof(path), "%s/%s.%s", folder, name, ending);
    FILE *file = fopen(path, mode);
    if (file == NULL)
        fail_msg("certificates: cannot open '%s'", path);
    return file;
}

static void add_extension(X509 *certificate, X509 *signer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx(&context, signer, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    assert_non_null(extension);
    assert_int_equal(X509_add_ext(certificate, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

static X509 *describe(const bt_certificate_wish *wish, EVP_PKEY *key)
{
    static long serial = 1;
    X509 *made = X509_new();
    assert_non_null(made);
    X509_set_version(made, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(made), serial++);
    X509_gmtime_adj(X509_getm_notBefore(made), wish->is_expired ? -2 * HOUR_S : -HOUR_S);
    X509_gmtime_adj(X509_getm_notAfter(made), wish->is_expired ? -HOUR_S : HOUR_S);
    X509_set_pubkey(made, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(made), "CN", MBSTRING_UTF8,
                               (const unsigned char *)wish->name, -1, -1, 0);
    return made;
}

static void sign(X509 *made, EVP_PKEY *own_key, const char *folder, const bt_certificate_wish *wish)
{
    X509 *signer = made;
    EVP_PKEY *key = own_key;
    if (wish->signer != NULL) {
        FILE *file = open_file(folder, wish->signer, "pem", "r");
        signer = PEM_read_X509(file, NULL, NULL, NULL);
        fclose(file);
        file = open_file(folder, wish->signer, "key", "r");
        key = PEM_read_PrivateKey(file, NULL, NULL, NULL);
        fclose(file);
    }
    X509_set_issuer_name(made, X509_get_subject_name(signer));
    if (wish->signer == NULL)
        add_extension(made, signer, NID_basic_constraints, "critical,CA:TRUE");
    if (wish->hosts != NULL)
        add_extension(made, signer, NID_subject_alt_name, wish->hosts);
    assert_true(X509_sign(made, key, EVP_sha256()) > 0);
    if (wish->signer != NULL) {
        X509_free(signer);
        EVP_PKEY_free(key);
    }
}

void bt_certificate_make(const char *folder, const bt_certificate_wish *wish)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    assert_non_null(key);
    X509 *made = describe(wish, key);
    sign(made, key, folder, wish);
    FILE *file = open_file(folder, wish->name, "pem", "w");
    assert_int_equal(PEM_write_X509(file, made), 1);
    fclose(file);
    file = open_file(folder, wish->name, "key", "w");
    assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
    fclose(file);
    X509_free(made);
    EVP_PKEY_free(key);
}
