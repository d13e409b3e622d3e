/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS by OpenSSL: see tls.h.
 *
 * OpenSSL's own chain verification is replaced by a callback that accepts any one certificate whose
 * key the peer proves to hold; who may do what is decided after the handshake, by fingerprint, in
 * netlink/link.c, before a single frame is read.
 */
#include "netlink/tls.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

struct tls_identity {
    SSL_CTX *server_ctx;
    SSL_CTX *client_ctx;
    EVP_PKEY *key;
    X509 *certificate;
    char fingerprint[TLS_FINGERPRINT_BYTES];
};

struct tls_conn {
    SSL *ssl;
    bool wants_write;
    char peer_fingerprint[TLS_FINGERPRINT_BYTES];
    char why[160];
};

/* Certificates do not expire in practice: trust is the pinned fingerprint, not a date. */
enum { CERTIFICATE_DAYS = 3650 * 5 };

/* What one read or write of the socket moves at most. */
enum { SYSCALL_BYTES = 128 * 1024 };

static void openssl_reason(char *buf, size_t cap)
{
    unsigned long code = ERR_get_error();

    if (code)
        snprintf(buf, cap, "%s",
                 ERR_reason_error_string(code) ? ERR_reason_error_string(code) : "TLS error");
    else
        snprintf(buf, cap, "unknown TLS error");
    ERR_clear_error();
}

static int fingerprint_of(X509 *cert, char ret[TLS_FINGERPRINT_BYTES])
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

static int accept_any_single(X509_STORE_CTX *store, void *arg)
{
    (void)arg;
    return X509_STORE_CTX_get0_cert(store) != NULL;
}

static SSL_CTX *make_context(struct tls_identity *id, bool server)
{
    static const unsigned char session_context[] = "ferry";
    SSL_CTX *ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());

    if (!ctx)
        return NULL;
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_cert_verify_callback(ctx, accept_any_single, NULL);
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(ctx, 0);
    SSL_CTX_set_max_early_data(ctx, 0);
    /* Many records a system call, both ways: half of a fast link's cost is the kernel's. */
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_default_read_buffer_len(ctx, SYSCALL_BYTES);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* AES-128 first: a third cheaper than AES-256, and every byte of every VM goes through it. */
    if (!SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) ||
        !SSL_CTX_set_ciphersuites(
            ctx, "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384") ||
        !SSL_CTX_set_session_id_context(ctx, session_context, sizeof(session_context) - 1) ||
        SSL_CTX_use_certificate(ctx, id->certificate) != 1 ||
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
        id->server_ctx = make_context(id, true);
        id->client_ctx = make_context(id, false);
        if (!id->server_ctx || !id->client_ctx ||
            fingerprint_of(id->certificate, id->fingerprint) < 0)
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

const char *tls_identity_fingerprint(const struct tls_identity *id)
{
    return id->fingerprint;
}

/* --- connections --------------------------------------------------------------------------- */

int tls_conn_new(struct tls_identity *id, int fd, bool server, struct tls_conn **ret)
{
    struct tls_conn *c = calloc(1, sizeof(*c));
    BIO *socket = BIO_new_socket(fd, BIO_NOCLOSE), *gather = BIO_new(BIO_f_buffer());

    if (c)
        c->ssl = SSL_new(server ? id->server_ctx : id->client_ctx);
    if (!c || !c->ssl || !socket || !gather ||
        BIO_set_write_buffer_size(gather, SYSCALL_BYTES) != 1 || BIO_up_ref(socket) != 1) {
        BIO_free(socket);
        BIO_free(gather);
        tls_conn_free(c);
        return -ENOMEM;
    }
    SSL_set0_rbio(c->ssl, socket);
    SSL_set0_wbio(c->ssl, BIO_push(gather, socket));
    if (server)
        SSL_set_accept_state(c->ssl);
    else
        SSL_set_connect_state(c->ssl);
    *ret = c;
    return 0;
}

void tls_conn_free(struct tls_conn *c)
{
    if (!c)
        return;
    SSL_free(c->ssl);
    free(c);
}

/* The meaning of a failed OpenSSL call: -EAGAIN, 0 at an orderly end, or an error with its words. */
static int fault_of(struct tls_conn *c, int result)
{
    int saved = errno;

    c->wants_write = false;
    switch (SSL_get_error(c->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return -EAGAIN;
    case SSL_ERROR_WANT_WRITE:
        c->wants_write = true;
        return -EAGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_SYSCALL:
        snprintf(c->why, sizeof(c->why), "%s",
                 saved ? strerror(saved) : "the peer closed the connection");
        ERR_clear_error();
        return saved ? -saved : -ECONNRESET;
    default:
        openssl_reason(c->why, sizeof(c->why));
        return -EPROTO;
    }
}

int tls_conn_handshake(struct tls_conn *c)
{
    X509 *cert;
    int r;

    ERR_clear_error();
    errno = 0;
    r = SSL_do_handshake(c->ssl);
    if (r != 1) {
        r = fault_of(c, r);
        return r == 0 ? -ECONNRESET : r;
    }
    c->wants_write = false;
    cert = SSL_get1_peer_certificate(c->ssl);
    r = cert ? fingerprint_of(cert, c->peer_fingerprint) : -EPROTO;
    X509_free(cert);
    return r;
}

ssize_t tls_conn_read(struct tls_conn *c, void *buf, size_t len)
{
    size_t done = 0;
    int r;

    ERR_clear_error();
    errno = 0;
    r = SSL_read_ex(c->ssl, buf, len, &done);
    return r == 1 ? (ssize_t)done : fault_of(c, r);
}

ssize_t tls_conn_write(struct tls_conn *c, const void *data, size_t len)
{
    size_t done = 0;
    int r;

    ERR_clear_error();
    errno = 0;
    r = SSL_write_ex(c->ssl, data, len, &done);
    if (r == 1) {
        c->wants_write = false;
        return (ssize_t)done;
    }
    r = fault_of(c, r);
    return r == 0 ? -EPIPE : r;
}

int tls_conn_flush(struct tls_conn *c)
{
    BIO *gather = SSL_get_wbio(c->ssl);

    ERR_clear_error();
    errno = 0;
    if (BIO_wpending(gather) == 0 || BIO_flush(gather) > 0)
        return 0;
    if (BIO_should_retry(gather))
        return -EAGAIN;
    snprintf(c->why, sizeof(c->why), "%s",
             errno ? strerror(errno) : "the peer closed the connection");
    return errno ? -errno : -EPIPE;
}

bool tls_conn_has_read_ahead(const struct tls_conn *c)
{
    return SSL_has_pending(c->ssl);
}

bool tls_conn_wants_write(const struct tls_conn *c)
{
    return c->wants_write;
}

const char *tls_conn_why(const struct tls_conn *c)
{
    return c->why;
}

const char *tls_conn_peer_fingerprint(const struct tls_conn *c)
{
    return c->peer_fingerprint;
}

const char *tls_conn_cipher(const struct tls_conn *c)
{
    return SSL_get_cipher_name(c->ssl);
}
