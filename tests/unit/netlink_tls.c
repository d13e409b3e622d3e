/* SPDX-License-Identifier: Apache-2.0 */
/* A site's identity on disk, and handshakes over a socket pair: who is seen, and who is turned away. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "core/base/macros.h"
#include "tests/unit/netlink_tls_site.h"

struct place {
    char folder[32], key[64], certificate[64], other_key[64], other_certificate[64];
};

static void place_new(struct place *p)
{
    strcpy(p->folder, "/tmp/ferry-tls-XXXXXX");
    assert_non_null(mkdtemp(p->folder));
    snprintf(p->key, sizeof(p->key), "%s/key.pem", p->folder);
    snprintf(p->certificate, sizeof(p->certificate), "%s/cert.pem", p->folder);
    snprintf(p->other_key, sizeof(p->other_key), "%s/key2.pem", p->folder);
    snprintf(p->other_certificate, sizeof(p->other_certificate), "%s/cert2.pem", p->folder);
}

static void place_free(struct place *p)
{
    unlink(p->key);
    unlink(p->certificate);
    unlink(p->other_key);
    unlink(p->other_certificate);
    assert_int_equal(rmdir(p->folder), 0);
}

static void expect_refused(const char *key, const char *certificate, const char *words)
{
    struct tls_identity *id = NULL;
    struct error err = {0};

    assert_true(tls_identity_load(key, certificate, "site", &id, &err) < 0);
    assert_null(id);
    if (!strstr(err.why, words))
        fail_msg("'%s' is not in: %s", words, err.why);
    assert_true(err.mend[0] != '\0');
}

/* --- identity ------------------------------------------------------------------------------ */

static void test_identity_is_made_and_stays(void **state)
{
    char fingerprint[TLS_FINGERPRINT_BYTES], parsed[TLS_FINGERPRINT_BYTES];
    struct tls_identity *id;
    struct place p;
    struct stat st;

    (void)state;
    place_new(&p);
    umask(0);
    id = load(p.key, p.certificate);
    umask(022);
    strcpy(fingerprint, tls_identity_fingerprint(id));
    assert_int_equal(tls_fingerprint_parse(fingerprint, parsed), 0);
    assert_string_equal(parsed, fingerprint);
    tls_identity_free(id);
    assert_int_equal(stat(p.key, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(stat(p.certificate, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0644);
    id = load(p.key, p.certificate);
    assert_string_equal(tls_identity_fingerprint(id), fingerprint);
    tls_identity_free(id);
    id = load(p.other_key, p.other_certificate);
    assert_string_not_equal(tls_identity_fingerprint(id), fingerprint);
    tls_identity_free(id);
    tls_identity_free(NULL);
    place_free(&p);
}

static void test_unusable_identities(void **state)
{
    struct place p;
    FILE *f;

    (void)state;
    place_new(&p);
    tls_identity_free(load(p.key, p.certificate));
    tls_identity_free(load(p.other_key, p.other_certificate));
    expect_refused(p.key, p.other_certificate, "matching pair");
    expect_refused(p.key, "/nonexistent.pem", "matching pair"); /* half of one is not remade */
    assert_int_equal(access("/nonexistent.pem", F_OK), -1);
    expect_refused("/nonexistent/key.pem", "/nonexistent/cert.pem", "No such file");
    f = fopen(p.key, "w");
    fputs("-----BEGIN PRIVATE KEY-----\nnonsense\n", f);
    fclose(f);
    expect_refused(p.key, p.certificate, "matching pair");
    place_free(&p);
}

static void test_fingerprints(void **state)
{
    static const char canonical[] =
        "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    static const char *const good[] = {
        "SHA256:00112233445566778899AABBCCDDEEFF00112233445566778899AABBCCDDEEFF",
        "sha256:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff:00:11:22:33:44:55:66:77:88:99:AA:"
        "BB:CC:DD:EE:FF",
    };
    static const char *const bad[] = {
        "",
        "sha256:",
        "sha256",
        "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
        "sha1:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
        "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeef",
        "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff0",
        "sha256:g0112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
        "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff ",
    };
    char out[TLS_FINGERPRINT_BYTES] = "untouched";

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(tls_fingerprint_parse(bad[i], out), -EINVAL);
    assert_string_equal(out, "untouched");
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        assert_int_equal(tls_fingerprint_parse(good[i], out), 0);
        assert_string_equal(out, canonical);
    }
}

/* --- handshakes ---------------------------------------------------------------------------- */

static void socket_pair(int fds[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
}

static void test_both_see_the_other(void **state)
{
    struct tls_identity *a, *b;
    struct tls_conn *client, *server;
    char buf[16];
    struct place p;
    int fds[2];

    (void)state;
    place_new(&p);
    a = load(p.key, p.certificate);
    b = load(p.other_key, p.other_certificate);
    socket_pair(fds);
    assert_int_equal(tls_conn_new(a, fds[0], false, &client), 0);
    assert_int_equal(tls_conn_new(b, fds[1], true, &server), 0);
    shake_hands(client, server);
    /* Each sees exactly who the other is: the owner compares, and both can tell a wrong one. */
    assert_string_equal(tls_conn_peer_fingerprint(client), tls_identity_fingerprint(b));
    assert_string_equal(tls_conn_peer_fingerprint(server), tls_identity_fingerprint(a));
    assert_string_not_equal(tls_conn_peer_fingerprint(client), tls_identity_fingerprint(a));
    assert_int_equal(strncmp(tls_conn_cipher(client), "TLS_", 4), 0);

    assert_int_equal(tls_conn_read(server, buf, sizeof(buf)), -EAGAIN);
    assert_int_equal(tls_conn_write(client, "hello", 5), 5);
    assert_int_equal(tls_conn_read(server, buf, sizeof(buf)), -EAGAIN); /* gathered, not sent yet */
    assert_int_equal(tls_conn_flush(client), 0);
    assert_int_equal(tls_conn_read(server, buf, sizeof(buf)), 5);
    assert_memory_equal(buf, "hello", 5);
    tls_conn_free(client);
    close(fds[0]);
    assert_true(tls_conn_read(server, buf, sizeof(buf)) < 0); /* cut off, not an orderly end */
    assert_true(tls_conn_why(server)[0] != '\0');
    tls_conn_free(server);
    tls_conn_free(NULL);
    close(fds[1]);
    tls_identity_free(a);
    tls_identity_free(b);
    place_free(&p);
}

/* A plain OpenSSL client of another kind against our server. Returns what our side's handshake ends with. */
static int serve_stranger(struct tls_identity *id, SSL_CTX *ctx, char why[160])
{
    SSL *stranger = SSL_new(ctx);
    struct tls_conn *server;
    int fds[2], r = -EAGAIN;

    socket_pair(fds);
    SSL_set_fd(stranger, fds[0]);
    SSL_set_connect_state(stranger);
    assert_int_equal(tls_conn_new(id, fds[1], true, &server), 0);
    for (int i = 0; i < 20 && r == -EAGAIN; i++) {
        SSL_do_handshake(stranger);
        r = tls_conn_handshake(server);
    }
    snprintf(why, 160, "%s", tls_conn_why(server));
    tls_conn_free(server);
    SSL_free(stranger);
    ERR_clear_error();
    close(fds[0]);
    close(fds[1]);
    return r;
}

static void test_strangers_are_turned_away(void **state)
{
    struct tls_identity *id;
    struct place p;
    char why[160];
    SSL_CTX *ctx;

    (void)state;
    place_new(&p);
    id = load(p.key, p.certificate);
    tls_identity_free(load(p.other_key, p.other_certificate));

    ctx = SSL_CTX_new(TLS_client_method()); /* no certificate */
    assert_true(serve_stranger(id, ctx, why) < 0);
    assert_non_null(strstr(why, "certificate"));
    SSL_CTX_free(ctx);

    ctx = SSL_CTX_new(TLS_client_method()); /* TLS 1.2, with a good certificate */
    assert_int_equal(SSL_CTX_use_certificate_file(ctx, p.other_certificate, SSL_FILETYPE_PEM), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey_file(ctx, p.other_key, SSL_FILETYPE_PEM), 1);
    assert_int_equal(serve_stranger(id, ctx, why), 0); /* as 1.3 it is taken */
    SSL_CTX_set_max_proto_version(ctx, TLS1_2_VERSION);
    assert_true(serve_stranger(id, ctx, why) < 0);
    assert_non_null(strstr(why, "protocol"));
    SSL_CTX_free(ctx);

    tls_identity_free(id);
    place_free(&p);
}

static void test_not_tls_at_all(void **state)
{
    static const char *const words[] = {"GET / HTTP/1.0\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n"};
    struct tls_identity *id;
    struct place p;

    (void)state;
    place_new(&p);
    id = load(p.key, p.certificate);
    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        struct tls_conn *server;
        int fds[2];

        socket_pair(fds);
        assert_int_equal(tls_conn_new(id, fds[1], true, &server), 0);
        assert_int_equal(tls_conn_handshake(server), -EAGAIN);
        assert_int_equal(write(fds[0], words[i], strlen(words[i])), strlen(words[i]));
        assert_true(tls_conn_handshake(server) < 0);
        assert_true(tls_conn_why(server)[0] != '\0');
        tls_conn_free(server);
        close(fds[0]);
        close(fds[1]);
    }
    tls_identity_free(id);
    place_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity_is_made_and_stays),
        cmocka_unit_test(test_unusable_identities),
        cmocka_unit_test(test_fingerprints),
        cmocka_unit_test(test_both_see_the_other),
        cmocka_unit_test(test_strangers_are_turned_away),
        cmocka_unit_test(test_not_tls_at_all),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
