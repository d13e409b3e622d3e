/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/linkload/raw.h"

#include <arpa/inet.h>
#include <limits.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <openssl/ssl.h>

#include "core/base/clock.h"
#include "core/base/macros.h"

enum { CHUNK_BYTES = 128 * 1024 };

struct raw_connection {
    pthread_t thread;
    SSL *ssl;
    const struct load_options *options;
    struct pattern_block *pattern;
    uint64_t bytes, until_ns;
    char cipher[64];
};

static SSL_CTX *make_context(const struct load_options *o, bool server)
{
    SSL_CTX *ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    char key[PATH_MAX], certificate[PATH_MAX];

    snprintf(key, sizeof(key), "%s/key.pem", o->folder);
    snprintf(certificate, sizeof(certificate), "%s/certificate.pem", o->folder);
    if (!ctx || !SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) ||
        !SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256") ||
        !SSL_CTX_set_num_tickets(ctx, 0) ||
        SSL_CTX_use_certificate_file(ctx, certificate, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1)
        return NULL;
    return ctx;
}

static int open_socket(const char *address, bool server)
{
    char host[256], *colon;
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = NULL;
    int one = 1, fd;

    snprintf(host, sizeof(host), "%s", address);
    colon = strrchr(host, ':');
    if (!colon)
        return -1;
    *colon = '\0';
    if (getaddrinfo(host, colon + 1, &hints, &found) != 0)
        return -1;
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if ((server ? bind(fd, found->ai_addr, found->ai_addrlen)
                : connect(fd, found->ai_addr, found->ai_addrlen)) < 0 ||
        (server && listen(fd, 64) < 0)) {
        close(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    return fd;
}

static void *send_all(void *arg)
{
    struct raw_connection *c = arg;

    while (clock_now_ns() < c->until_ns) {
        size_t n, done = 0;
        const uint8_t *data = pattern_at(c->pattern, c->bytes, &n);

        if (SSL_write_ex(c->ssl, data, MIN(n, (size_t)CHUNK_BYTES), &done) != 1)
            break;
        c->bytes += done;
    }
    SSL_shutdown(c->ssl);
    return NULL;
}

static void *receive_all(void *arg)
{
    struct raw_connection *c = arg;
    uint8_t *chunk = malloc(CHUNK_BYTES);
    size_t done = 0;

    while (chunk && SSL_read_ex(c->ssl, chunk, CHUNK_BYTES, &done) == 1)
        c->bytes += done;
    free(chunk);
    return NULL;
}

static int run(const struct load_options *o, bool server, void *(*work)(void *))
{
    struct raw_connection connections[LIMIT_SESSION_STRIPES] = {0};
    SSL_CTX *ctx = make_context(o, server);
    int listener = server ? open_socket(o->link.listen, true) : -1;
    struct pattern_block *pattern = pattern_new(o->pattern);
    uint64_t start_ns = 0, bytes = 0;
    unsigned n = MIN(o->link.stripes, LIMIT_SESSION_STRIPES);

    if (!ctx || !pattern || (server && listener < 0))
        return 1;
    for (unsigned i = 0; i < n; i++) {
        struct raw_connection *c = &connections[i];
        int fd = server ? accept(listener, NULL, NULL) : open_socket(o->peer.address, false);

        c->ssl = SSL_new(ctx);
        if (fd < 0 || !c->ssl || SSL_set_fd(c->ssl, fd) != 1 ||
            (server ? SSL_accept(c->ssl) : SSL_connect(c->ssl)) != 1) {
            fprintf(stderr, "linkload: raw connection %u failed\n", i);
            return 1;
        }
        c->options = o;
        c->pattern = pattern;
    }
    start_ns = clock_now_ns();
    for (unsigned i = 0; i < n; i++) {
        connections[i].until_ns = start_ns + (uint64_t)(o->seconds * 1e9);
        if (pthread_create(&connections[i].thread, NULL, work, &connections[i]) != 0)
            return 1;
    }
    for (unsigned i = 0; i < n; i++) {
        pthread_join(connections[i].thread, NULL);
        bytes += connections[i].bytes;
    }
    printf("{\"event\":\"end\",\"bytes\":%llu,\"seconds\":%.3f,\"cipher\":\"%s\"}\n",
           (unsigned long long)bytes, (double)(clock_now_ns() - start_ns) / 1e9,
           SSL_get_cipher_name(connections[0].ssl));
    for (unsigned i = 0; i < n; i++) {
        close(SSL_get_fd(connections[i].ssl));
        SSL_free(connections[i].ssl);
    }
    if (listener >= 0)
        close(listener);
    pattern_free(pattern);
    SSL_CTX_free(ctx);
    return 0;
}

int raw_send(const struct load_options *o)
{
    return run(o, false, send_all);
}

int raw_receive(const struct load_options *o)
{
    return run(o, true, receive_all);
}
