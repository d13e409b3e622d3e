/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes how a connection begins: a link on loopback meets a peer that says anything at all, before TLS or inside
 * it with a certificate that is known, as the caller or as the one who is called.
 *
 * The first byte chooses: bit 0 says it before TLS, bit 1 is called (else calls), bit 2 puts a sound greeting
 * first. Whatever is said, the link goes on: the next input meets the same one.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/log.h"
#include "netlink/link.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { TURNS_MAX = 400, QUIET_TURNS = 12 };

static struct {
    uv_loop_t loop;
    struct tls_identity *own, *known;
    struct link *link;
    struct link_peer peer;
    struct sockaddr_in link_address, peer_address;
    int listener;
} f;

static void check(bool good)
{
    if (!good)
        abort();
}

static bool on_find_peer(void *user, const struct tls_conn *seen, struct link_peer *ret)
{
    (void)user;
    *ret = f.peer;
    return link_peer_is(&f.peer, seen);
}

static void on_session(void *user, struct link_session *ls)
{
    (void)user;
    (void)ls;
}

static void on_stream(void *user, struct link_session *ls, struct stream *stream)
{
    (void)user;
    (void)ls;
    stream_release(stream);
}

static void on_session_closed(void *user, struct link_session *ls, const struct error *why)
{
    (void)user;
    (void)ls;
    check(why->why[0] != '\0');
    *(struct link_session **)link_session_user(ls) = NULL;
}

static struct link_session *dialled;
static struct link_session *accepted; /* nobody asks for it */

static void on_accepted(void *user, struct link_session *ls)
{
    on_session(user, ls);
    link_session_set_user(ls, &accepted);
}

static const struct link_ops link_ops = {.find_peer = on_find_peer,
                                         .on_session = on_accepted,
                                         .on_stream = on_stream,
                                         .on_session_closed = on_session_closed};

static int listen_somewhere(struct sockaddr_in *ret)
{
    socklen_t len = sizeof(*ret);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    *ret = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    check(fd >= 0 && bind(fd, (struct sockaddr *)ret, len) == 0 &&
          getsockname(fd, (struct sockaddr *)ret, &len) == 0 && listen(fd, 64) == 0);
    return fd;
}

static struct tls_identity *make_identity(const char *folder, const char *name)
{
    char key[128], certificate[128];
    struct tls_identity *id = NULL;

    snprintf(key, sizeof(key), "%s/key", folder);
    snprintf(certificate, sizeof(certificate), "%s/certificate", folder);
    check(tls_identity_load(key, certificate, name, &id, NULL) == 0);
    unlink(key);
    unlink(certificate);
    return id;
}

static void set_up(void)
{
    char folder[] = "/tmp/ferry-fuzz-XXXXXX";
    struct link_config config;

    check(mkdtemp(folder) != NULL && signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    log_set_level(LOG_LEVEL_ERROR);
    uv_loop_init(&f.loop);
    f.own = make_identity(folder, "own");
    f.known = make_identity(folder, "known");
    rmdir(folder);
    close(listen_somewhere(&f.link_address)); /* free a moment later, too */
    f.listener = listen_somewhere(&f.peer_address);
    f.peer = (struct link_peer){.name = "known"};
    strcpy(f.peer.fingerprint, tls_identity_fingerprint(f.known));
    snprintf(f.peer.address, sizeof(f.peer.address), "127.0.0.1:%u",
             ntohs(f.peer_address.sin_port));
    link_config_default(&config);
    config.stripes = 1;
    config.window_bytes = 1u << 20;
    config.outage_limit_ns = NS_PER_MS; /* sessions that were opened do not pile up */
    strcpy(config.site_name, "own");
    snprintf(config.listen, sizeof(config.listen), "127.0.0.1:%u", ntohs(f.link_address.sin_port));
    check(link_new(&f.loop, &config, f.own, &link_ops, NULL, &f.link, NULL) == 0);
}

static int connect_to_link(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    check(fd >= 0 && connect(fd, (struct sockaddr *)&f.link_address, sizeof(f.link_address)) == 0);
    check(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    return fd;
}

static int accept_from_link(void)
{
    int fd = -1;

    for (int i = 0; i < TURNS_MAX && fd < 0; i++) {
        uv_run(&f.loop, UV_RUN_NOWAIT);
        fd = accept4(f.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            usleep(100);
    }
    return fd;
}

static size_t sound_greeting(uint8_t frame[WIRE_HELLO_MAX_BYTES], bool called)
{
    struct wire_hello h = {.version = WIRE_VERSION, .window_bytes = 1u << 20, .name = "known"};

    memset(h.session_id, 7, sizeof(h.session_id));
    return wire_put_hello(frame, called ? WIRE_WELCOME : WIRE_HELLO, &h);
}

/* Lets the link work, and takes what it says, until it says no more or hangs up. */
static void listen_to(int fd, struct tls_conn *tls)
{
    uint8_t heard[16384];

    for (int quiet = 0; quiet < QUIET_TURNS; quiet++) {
        ssize_t n;

        uv_run(&f.loop, UV_RUN_NOWAIT);
        n = tls ? tls_conn_read(tls, heard, sizeof(heard)) : read(fd, heard, sizeof(heard));
        if (n == 0 || (n < 0 && tls && n != -EAGAIN))
            return;
        if (n > 0)
            quiet = 0;
    }
}

static void talk(int fd, bool raw, bool called, bool greet, const uint8_t *data, size_t len)
{
    uint8_t frame[WIRE_HELLO_MAX_BYTES];
    struct tls_conn *tls = NULL;
    int r = -EAGAIN;

    if (raw) {
        check(send(fd, data, len, MSG_NOSIGNAL) >= -1);
        listen_to(fd, NULL);
        return;
    }
    check(tls_conn_new(f.known, fd, called, &tls) == 0);
    for (int i = 0; i < TURNS_MAX && r == -EAGAIN; i++) {
        r = tls_conn_handshake(tls);
        uv_run(&f.loop, UV_RUN_NOWAIT);
    }
    if (r == 0 && greet)
        tls_conn_write(tls, frame, sound_greeting(frame, called));
    if (r == 0 && tls_conn_write(tls, data, len) > 0)
        tls_conn_flush(tls);
    listen_to(fd, tls);
    tls_conn_free(tls);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    bool raw, called;
    int fd;

    if (len < 2)
        return 0;
    if (!f.link)
        set_up();
    raw = data[0] & 1;
    called = data[0] & 2;
    if (called) {
        if (link_dial(f.link, &f.peer, &dialled, NULL) < 0)
            return 0;
        link_session_set_user(dialled, &dialled);
    }
    fd = called ? accept_from_link() : connect_to_link();
    if (fd >= 0) {
        talk(fd, raw, called, data[0] & 4, data + 1, len - 1);
        close(fd);
    }
    for (int i = 0; i < 4; i++)
        uv_run(&f.loop, UV_RUN_NOWAIT);
    if (dialled)
        link_session_close(TAKE_PTR(dialled));
    return 0;
}
