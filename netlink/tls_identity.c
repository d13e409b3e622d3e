/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A site's key and certificate, and whom it trusts: see tls.h.
 *
 * OpenSSL's own verdict on a chain never ends a handshake here: the callback notes it, and who may do what is
 * decided after the handshake, by fingerprint or by a certified name, in netlink/link_greeting.c, before a
 * single frame is read.
 */
#include "netlink/tls_private.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>

/* The certificates that ferry makes do not expire in practice: trust in them is the pinned fingerprint. */
enum { CERTIFICATE_DAYS = 3650 * 5 };

int tls_fingerprint_of(X509 *cert, char ret[TLS_FINGERPRINT_BYTES])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int len = 0;
    size_t used;

    if (!X509_digest(cert, EVP_sha256(), digest, &len) || len != 32)
        return -EIO;
    used = (size_t)snprintf(ret, TLS_FINGERPRINT_BYTES, "sha256:");
    for (unsigned int i = 0; i < len; i++)
        used += (size_t)snprintf(ret + used, TLS_FINGERPRINT_BYTES - used, "%02x", digest[i]);
    return 0;
}

int tls_fingerprint_parse(const char *text, char ret[TLS_FINGERPRINT_BYTES])
{
    char out[TLS_FINGERPRINT_BYTES] = "sha256:";
    size_t used = 7;

    if (strncasecmp(text, "sha256:", 7) != 0)
        return -EINVAL;
    for (const char *p = text + 7; *p; p++) {
        if (*p == ':')
            continue;
        if (!isxdigit((unsigned char)*p) || used >= TLS_FINGERPRINT_BYTES - 1)
            return -EINVAL;
        out[used++] = (char)tolower((unsigned char)*p);
    }
    if (used != TLS_FINGERPRINT_BYTES - 1)
        return -EINVAL;
    memcpy(ret, out, sizeof(out));
    return 0;
}

/* --- identity ------------------------------------------------------------------------------ */

static X509 *make_certificate(EVP_PKEY *key, const char *site_name)
{
    X509 *cert = X509_new();
    X509_NAME *name;
    unsigned char serial[8];
    uint64_t number = 0;

    if (!cert || RAND_bytes(serial, sizeof(serial)) != 1)
        goto fail;
    for (size_t i = 0; i < sizeof(serial); i++)
        number = number << 8 | serial[i];
    name = X509_get_subject_name(cert);
    if (!X509_set_version(cert, 2) ||
        !ASN1_INTEGER_set_uint64(X509_get_serialNumber(cert), number >> 1) ||
        !X509_gmtime_adj(X509_getm_notBefore(cert), -24 * 3600) ||
        !X509_time_adj_ex(X509_getm_notAfter(cert), CERTIFICATE_DAYS, 0, NULL) ||
        !X509_set_pubkey(cert, key) ||
        !X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)site_name, -1,
                                    -1, 0) ||
        !X509_set_issuer_name(cert, name) || !X509_sign(cert, key, EVP_sha256()))
        goto fail;
    return cert;
fail:
    X509_free(cert);
    return NULL;
}

static FILE *create_file(const char *path, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;

    if (!f && fd >= 0)
        close(fd);
    return f;
}

static int write_pem(const char *path, mode_t mode, EVP_PKEY *key, X509 *cert)
{
    FILE *f = create_file(path, mode);
    bool ok;

    if (!f)
        return -errno;
    ok = key ? PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) == 1
             : PEM_write_X509(f, cert) == 1;
    ok = fflush(f) == 0 && fsync(fileno(f)) == 0 && ok;
    fclose(f);
    if (!ok)
        unlink(path);
    return ok ? 0 : -EIO;
}

static int make_identity(struct tls_identity *id, const char *key_path,
                         const char *certificate_path, const char *site_name, struct error *err)
{
    int r;

    id->key = EVP_EC_gen("P-256");
    id->certificate = id->key ? make_certificate(id->key, site_name) : NULL;
    if (!id->certificate)
        return error_set(err, -EIO, "make the site's key", NULL, "OpenSSL could not make it");
    r = write_pem(key_path, 0600, id->key, NULL);
    if (r == 0) {
        r = write_pem(certificate_path, 0644, NULL, id->certificate);
        if (r < 0)
            unlink(key_path);
    }
    if (r < 0)
        return error_set(err, r, "store the site's key",
                         "check that the folder exists and is writable", "%s and %s: %s", key_path,
                         certificate_path, strerror(-r));
    return 0;
}

static int read_identity(struct tls_identity *id, const char *key_path,
                         const char *certificate_path, struct error *err)
{
    FILE *f = fopen(key_path, "re");

    if (f) {
        id->key = PEM_read_PrivateKey(f, NULL, NULL, NULL);
        fclose(f);
    }
    f = fopen(certificate_path, "re");
    if (f) {
        id->certificate = PEM_read_X509(f, NULL, NULL, NULL);
        fclose(f);
    }
    if (!id->key || !id->certificate || X509_check_private_key(id->certificate, id->key) != 1)
        return error_set(err, -EINVAL, "load the site's key",
                         "restore both files from a backup, or remove both to make a new identity",
                         "%s and %s are not readable as a matching pair of PEM files", key_path,
                         certificate_path);
    return 0;
}

/* The handshake goes on with any one certificate whose key the peer holds. What the CA of this site, if it has
 * one, says of it is noted for tls_conn_peer_has_name(). */
static int note_certification(X509_STORE_CTX *store, void *arg)
{
    const struct tls_identity *id = arg;
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct tls_conn *c = ssl ? SSL_get_app_data(ssl) : NULL;

    if (!c || !X509_STORE_CTX_get0_cert(store))
        return 0;
    c->peer_certified = id->has_ca && X509_verify_cert(store) == 1;
    if (!c->peer_certified)
        snprintf(c->peer_doubt, sizeof(c->peer_doubt), "%s",
                 id->has_ca ? X509_verify_cert_error_string(X509_STORE_CTX_get_error(store))
                            : "this site has no ca");
    ERR_clear_error();
    X509_STORE_CTX_set_error(store, X509_V_OK);
    return 1;
}

static SSL_CTX *make_context(struct tls_identity *id, const char *certificate_path, bool server)
{
    static const unsigned char session_context[] = "ferry";
    SSL_CTX *ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());

    if (!ctx)
        return NULL;
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_cert_verify_callback(ctx, note_certification, id);
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(ctx, 0);
    SSL_CTX_set_max_early_data(ctx, 0);
    /* Many records a system call, both ways: half of a fast link's cost is the kernel's. */
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_default_read_buffer_len(ctx, TLS_SYSCALL_BYTES);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* AES-128 first: a third cheaper than AES-256, and every byte of every VM goes through it. */
    if (!SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) ||
        !SSL_CTX_set_ciphersuites(
            ctx, "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384") ||
        !SSL_CTX_set_session_id_context(ctx, session_context, sizeof(session_context) - 1) ||
        SSL_CTX_use_certificate_chain_file(ctx, certificate_path) != 1 ||
        SSL_CTX_use_PrivateKey(ctx, id->key) != 1) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    return ctx;
}

int tls_identity_load(const char *key_path, const char *certificate_path, const char *site_name,
                      struct tls_identity **ret, struct error *err)
{
    struct tls_identity *id = calloc(1, sizeof(*id));
    bool exists = access(key_path, F_OK) == 0 || access(certificate_path, F_OK) == 0;
    int r;

    if (!id)
        return error_set(err, -ENOMEM, "load the site's key", NULL, "out of memory");
    r = exists ? read_identity(id, key_path, certificate_path, err)
               : make_identity(id, key_path, certificate_path, site_name, err);
    if (r == 0) {
        id->server_ctx = make_context(id, certificate_path, true);
        id->client_ctx = make_context(id, certificate_path, false);
        if (!id->server_ctx || !id->client_ctx ||
            tls_fingerprint_of(id->certificate, id->fingerprint) < 0)
            r = error_set(err, -EIO, "set up TLS", NULL, "OpenSSL refused the site's certificate");
    }
    if (r < 0) {
        tls_identity_free(id);
        return r;
    }
    *ret = id;
    return 0;
}

void tls_identity_free(struct tls_identity *id)
{
    if (!id)
        return;
    SSL_CTX_free(id->server_ctx);
    SSL_CTX_free(id->client_ctx);
    EVP_PKEY_free(id->key);
    X509_free(id->certificate);
    free(id);
}

static int trust(SSL_CTX *ctx, const char *ca_path, const char *crl_path, const char **ret_bad)
{
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    X509_LOOKUP *lookup;

    *ret_bad = ca_path;
    if (!SSL_CTX_load_verify_file(ctx, ca_path))
        return -EINVAL;
    *ret_bad = crl_path;
    if (!crl_path[0])
        return 0;
    lookup = X509_STORE_add_lookup(store, X509_LOOKUP_file());
    if (!lookup || X509_load_crl_file(lookup, crl_path, X509_FILETYPE_PEM) < 1)
        return -EINVAL;
    return X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK) == 1 ? 0 : -ENOMEM;
}

int tls_identity_trust(struct tls_identity *id, const char *ca_path, const char *crl_path,
                       struct error *err)
{
    const char *bad = ca_path;
    int r = trust(id->server_ctx, ca_path, crl_path, &bad);

    if (r == 0)
        r = trust(id->client_ctx, ca_path, crl_path, &bad);
    ERR_clear_error();
    if (r < 0)
        return error_set(err, r, "load the CA", "check ca = and crl = in [tls]",
                         "%s is not readable as %s in PEM", bad,
                         bad == ca_path ? "certificates" : "a revocation list");
    id->has_ca = true;
    return 0;
}

const char *tls_identity_fingerprint(const struct tls_identity *id)
{
    return id->fingerprint;
}
