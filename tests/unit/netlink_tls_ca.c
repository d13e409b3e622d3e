/* SPDX-License-Identifier: Apache-2.0 */
/* Peers known by a name that a CA certifies: which certificates count for it, and which do not. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "core/base/macros.h"
#include "netlink/link.h"
#include "tests/unit/netlink_tls_site.h"

enum { DAY_S = 24 * 3600 };

struct authority {
    EVP_PKEY *key;
    X509 *certificate;
};

/* What a certificate says. */
struct claim {
    const char *common_name;
    const char *alternative; /* subjectAltName, as OpenSSL writes it; NULL: none */
    const char *usage;       /* extendedKeyUsage; NULL: any */
    long from_s, until_s;    /* from now */
    long serial;
};

static char folder[64];

static const char *path_of(const char *name)
{
    static char paths[8][128];
    static unsigned next;
    char *path = paths[next++ % ARRAY_SIZE(paths)];

    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

static void extend(X509 *cert, X509 *issuer, int what, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *extension;

    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    extension = X509V3_EXT_conf_nid(NULL, &ctx, what, value);
    assert_non_null(extension);
    assert_int_equal(X509_add_ext(cert, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

/* @by NULL: signed by itself, a CA. */
static X509 *issue(const struct authority *by, EVP_PKEY *key, const struct claim *claim, bool ca)
{
    X509 *cert = X509_new();
    X509_NAME *name = X509_get_subject_name(cert);

    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), claim->serial);
    X509_gmtime_adj(X509_getm_notBefore(cert), claim->from_s);
    X509_gmtime_adj(X509_getm_notAfter(cert), claim->until_s);
    X509_set_pubkey(cert, key);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)claim->common_name,
                               -1, -1, 0);
    X509_set_issuer_name(cert, by ? X509_get_subject_name(by->certificate) : name);
    extend(cert, by ? by->certificate : cert, NID_basic_constraints,
           ca ? "critical,CA:TRUE" : "critical,CA:FALSE");
    if (ca)
        extend(cert, cert, NID_key_usage, "critical,keyCertSign,cRLSign");
    if (claim->alternative)
        extend(cert, cert, NID_subject_alt_name, claim->alternative);
    if (claim->usage)
        extend(cert, cert, NID_ext_key_usage, claim->usage);
    assert_true(X509_sign(cert, by ? by->key : key, EVP_sha256()) > 0);
    return cert;
}

static void authority_new(struct authority *a, const struct authority *by, const char *name)
{
    struct claim claim = {
        .common_name = name, .from_s = -DAY_S, .until_s = DAY_S, .serial = 1000 + name[0]};

    a->key = EVP_EC_gen("P-256");
    a->certificate = issue(by, a->key, &claim, true);
}

static void authority_free(struct authority *a)
{
    EVP_PKEY_free(a->key);
    X509_free(a->certificate);
}

static void append_pem(const char *path, X509 *cert)
{
    FILE *f = fopen(path, "a");

    assert_non_null(f);
    assert_int_equal(PEM_write_X509(f, cert), 1);
    fclose(f);
}

static void write_key(const char *path, EVP_PKEY *key)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_int_equal(PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL), 1);
    fclose(f);
}

static void list_revoked(const struct authority *a, long serial, const char *path)
{
    X509_CRL *crl = X509_CRL_new();
    X509_REVOKED *entry = X509_REVOKED_new();
    ASN1_INTEGER *number = ASN1_INTEGER_new();
    ASN1_TIME *time = ASN1_TIME_new();
    FILE *f = fopen(path, "w");

    X509_CRL_set_version(crl, 1);
    X509_CRL_set_issuer_name(crl, X509_get_subject_name(a->certificate));
    X509_gmtime_adj(time, -3600);
    X509_CRL_set1_lastUpdate(crl, time);
    ASN1_INTEGER_set(number, serial);
    X509_REVOKED_set_serialNumber(entry, number);
    X509_REVOKED_set_revocationDate(entry, time);
    X509_CRL_add0_revoked(crl, entry);
    X509_gmtime_adj(time, DAY_S);
    X509_CRL_set1_nextUpdate(crl, time);
    assert_true(X509_CRL_sign(crl, a->key, EVP_sha256()) > 0);
    assert_int_equal(PEM_write_X509_CRL(f, crl), 1);
    fclose(f);
    ASN1_INTEGER_free(number);
    ASN1_TIME_free(time);
    X509_CRL_free(crl);
}

static void clear(void)
{
    static const char *const names[] = {"key", "cert", "ca", "crl", "own-key", "own-cert"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        unlink(path_of(names[i]));
}

/* A site that trusts the CA in "ca" (and the list in "crl") meets the holder of "key" and "cert". Whether it
 * takes it for @name, and for what it says when not. */
static bool passes_for(const char *name, bool with_crl, char doubt[128])
{
    struct tls_identity *own = load(path_of("own-key"), path_of("own-cert")),
                        *other = load(path_of("key"), path_of("cert"));
    struct link_peer peer = {.name = "b"};
    struct tls_conn *a, *b;
    struct error err = {0};
    int fds[2];
    bool passes;

    snprintf(peer.certificate_name, sizeof(peer.certificate_name), "%s", name);
    assert_int_equal(tls_identity_trust(own, path_of("ca"), with_crl ? path_of("crl") : "", &err),
                     0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    assert_int_equal(tls_conn_new(own, fds[0], true, &a), 0);
    assert_int_equal(tls_conn_new(other, fds[1], false, &b), 0);
    shake_hands(a, b);
    passes = link_peer_is(&peer, a);
    assert_false(link_peer_is(&peer, b)); /* the other one trusts no CA */
    snprintf(doubt, 128, "%s", tls_conn_peer_doubt(a));
    /* The pin counts as before, and when both are wanted both must be right. */
    snprintf(peer.fingerprint, sizeof(peer.fingerprint), "%s", tls_conn_peer_fingerprint(a));
    assert_int_equal(link_peer_is(&peer, a), passes);
    peer.fingerprint[10] = peer.fingerprint[10] == '0' ? '1' : '0';
    assert_false(link_peer_is(&peer, a));
    memset(&peer, 0, sizeof(peer));
    assert_false(link_peer_is(&peer, a)); /* nobody is everybody */
    tls_conn_free(a);
    tls_conn_free(b);
    close(fds[0]);
    close(fds[1]);
    tls_identity_free(own);
    tls_identity_free(other);
    return passes;
}

static const struct claim GOOD = {.common_name = "anything",
                                  .alternative = "DNS:b.example, DNS:other.example",
                                  .from_s = -DAY_S,
                                  .until_s = DAY_S,
                                  .serial = 7};

/* The holder's certificate, signed by @by; the CA trusted is @root. */
static void prepare(const struct authority *root, const struct authority *by,
                    const struct claim *claim, bool chain)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = issue(by, key, claim, false);

    clear();
    append_pem(path_of("ca"), root->certificate);
    write_key(path_of("key"), key);
    append_pem(path_of("cert"), cert);
    if (chain)
        append_pem(path_of("cert"), by->certificate);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static void test_names(void **state)
{
    static const struct {
        const char *alternative, *name;
        bool passes;
    } cases[] = {
        {"DNS:b.example", "b.example", true},
        {"DNS:x.example, DNS:b.example", "b.example", true},
        {"DNS:B.Example", "b.example", true},
        {"DNS:c.example", "b.example", false},
        {"DNS:b.example.org", "b.example", false},
        {"DNS:*.example", "b.example", false},
        {"email:b.example@b.example", "b.example", false},
        {NULL, "b.example", false}, /* the common name is for people */
    };
    struct authority root;
    char doubt[128];

    (void)state;
    authority_new(&root, NULL, "root");
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct claim claim = GOOD;

        claim.common_name = "b.example";
        claim.alternative = cases[i].alternative;
        prepare(&root, &root, &claim, false);
        if (passes_for(cases[i].name, false, doubt) != cases[i].passes)
            fail_msg("case %zu: '%s'", i, doubt);
        assert_string_equal(doubt, "");
    }
    authority_free(&root);
}

static void expect_doubt(const char *words)
{
    char doubt[128];

    assert_false(passes_for("b.example", false, doubt));
    if (!strstr(doubt, words))
        fail_msg("'%s' is not in: %s", words, doubt);
}

static void test_chains(void **state)
{
    struct authority root, other, middle;
    struct claim claim = GOOD;
    char doubt[128];

    (void)state;
    authority_new(&root, NULL, "root");
    authority_new(&other, NULL, "root"); /* the same name, another key */
    authority_new(&middle, &root, "middle");
    prepare(&root, &middle, &claim, true);
    assert_true(passes_for("b.example", false, doubt));
    prepare(&root, &middle, &claim, false);
    expect_doubt("issuer");
    prepare(&root, &other, &claim, false);
    expect_doubt("signature");
    claim.until_s = -60;
    prepare(&root, &root, &claim, false);
    expect_doubt("expired");
    claim = GOOD;
    claim.from_s = 3600;
    prepare(&root, &root, &claim, false);
    expect_doubt("not yet valid");
    claim = GOOD;
    claim.usage = "emailProtection";
    prepare(&root, &root, &claim, false);
    expect_doubt("purpose");
    claim.usage = "serverAuth,clientAuth";
    prepare(&root, &root, &claim, false);
    assert_true(passes_for("b.example", false, doubt));
    authority_free(&root);
    authority_free(&other);
    authority_free(&middle);
}

static void test_revocation(void **state)
{
    struct authority root;
    char doubt[128];

    (void)state;
    authority_new(&root, NULL, "root");
    prepare(&root, &root, &GOOD, false);
    list_revoked(&root, GOOD.serial + 1, path_of("crl"));
    assert_true(passes_for("b.example", true, doubt));
    list_revoked(&root, GOOD.serial, path_of("crl"));
    assert_false(passes_for("b.example", true, doubt));
    assert_non_null(strstr(doubt, "revoked"));
    authority_free(&root);
}

static void test_unreadable_files(void **state)
{
    struct tls_identity *id;
    struct authority root;
    struct error err = {0};

    (void)state;
    authority_new(&root, NULL, "root");
    clear();
    append_pem(path_of("ca"), root.certificate);
    id = load(path_of("own-key"), path_of("own-cert"));
    assert_true(tls_identity_trust(id, path_of("none"), "", &err) < 0);
    assert_non_null(strstr(err.why, "none"));
    assert_true(tls_identity_trust(id, path_of("ca"), path_of("none"), &err) < 0);
    assert_true(tls_identity_trust(id, path_of("own-key"), "", &err) < 0);
    assert_int_equal(tls_identity_trust(id, path_of("ca"), "", &err), 0);
    tls_identity_free(id);
    authority_free(&root);
}

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/ferry-ca-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    clear();
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_chains),
        cmocka_unit_test(test_revocation),
        cmocka_unit_test(test_unreadable_files),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
