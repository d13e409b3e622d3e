/* SPDX-License-Identifier: Apache-2.0 */
/* The emulated line, on which every figure of this project stands: it is as fast, as long and as lossy as it says, and
 * what it carries comes out whole and in order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <linux/virtio_net.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "tools/wan/path.h"

/* With Ethernet's 38 bytes 1500 on the wire: a millisecond at 12 Mbit/s. */
enum { IP_BYTES = 1462, HEADER_BYTES = sizeof(struct virtio_net_hdr), TCP_AND_IP_BYTES = 40 };

static const struct path_settings slow = {.rtt_ms = 100, .rate_mbit = 12, .queue_ms = 10000};

static struct path *path_new(const struct path_settings *s)
{
    struct path *p = calloc(1, sizeof(*p));

    assert_non_null(p);
    assert_null(path_settings_problem(s));
    path_seed(p, 452);
    assert_int_equal(path_configure(p, s), 0);
    return p;
}

static void path_free(struct path *p)
{
    path_done(p);
    free(p);
}

/* A packet that carries its number. */
static void send(struct path *p, uint64_t now_ns, uint32_t number)
{
    uint8_t *packet = path_reserve(p);

    memset(packet, 0, HEADER_BYTES);
    for (size_t at = 0; at + sizeof(number) <= IP_BYTES; at += sizeof(number))
        memcpy(packet + HEADER_BYTES + at, &number, sizeof(number));
    path_commit(p, now_ns, HEADER_BYTES + IP_BYTES);
}

/* Takes out what is due, which must be the packets from @from on; returns how many. */
static uint32_t receive(struct path *p, uint64_t now_ns, uint32_t from)
{
    const uint8_t *packet;
    uint32_t n = 0, found;
    size_t len;

    for (; (packet = path_due(p, now_ns, &len)); n++) {
        assert_int_equal(len, HEADER_BYTES + IP_BYTES);
        for (size_t at = 0; at + sizeof(found) <= IP_BYTES; at += sizeof(found)) {
            memcpy(&found, packet + HEADER_BYTES + at, sizeof(found));
            assert_int_equal(found, from + n);
        }
        path_pop(p);
    }
    return n;
}

static void test_rate_and_delay(void **state)
{
    struct path *p = path_new(&slow);

    (void)state;
    for (uint32_t i = 0; i < 1000; i++)
        send(p, NS_PER_S, i);
    assert_int_equal(path_deadline(p), NS_PER_S + 51 * NS_PER_MS);
    assert_int_equal(receive(p, NS_PER_S + 51 * NS_PER_MS - 1, 0), 0);
    assert_int_equal(receive(p, NS_PER_S + 51 * NS_PER_MS, 0), 1);
    assert_int_equal(receive(p, NS_PER_S + 550 * NS_PER_MS, 1), 499);
    assert_int_equal(receive(p, NS_PER_S + 1050 * NS_PER_MS, 500), 500);
    assert_true(path_deadline(p) == WAN_NEVER);
    assert_int_equal(p->stats.bytes, UINT64_C(1000) * IP_BYTES);
    path_free(p);
}

/* It takes the time of the packets that a network card makes of it, the headers of each included. */
static void test_super_packet(void **state)
{
    const struct virtio_net_hdr h = {.gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
                                     .gso_size = IP_BYTES - TCP_AND_IP_BYTES};
    struct path *p = path_new(&slow);
    size_t len;

    (void)state;
    memcpy(path_reserve(p), &h, sizeof(h));
    path_commit(p, 0, HEADER_BYTES + TCP_AND_IP_BYTES + 10 * (size_t)h.gso_size);
    assert_int_equal(path_deadline(p), (10 + 50) * NS_PER_MS);
    assert_int_equal(p->stats.packets, 1);
    assert_int_equal(p->stats.segments, 10);
    assert_int_equal(p->stats.bytes, UINT64_C(10) * IP_BYTES);
    assert_non_null(path_due(p, 60 * NS_PER_MS, &len));
    path_pop(p);
    path_free(p);
}

static void test_queue_drops_its_tail(void **state)
{
    struct path *p =
        path_new(&(struct path_settings){.rtt_ms = 100, .rate_mbit = 12, .queue_ms = 20});

    (void)state;
    for (uint32_t i = 0; i < 100; i++)
        send(p, 0, i);
    assert_int_equal(p->stats.packets, 21);
    assert_int_equal(p->stats.dropped_queue, 79);
    for (uint32_t i = 21; i < 31; i++) /* ten have left it by then */
        send(p, 10 * NS_PER_MS, i);
    assert_int_equal(p->stats.dropped_queue, 79);
    send(p, 10 * NS_PER_MS, 31);
    assert_int_equal(p->stats.dropped_queue, 80);
    assert_int_equal(receive(p, NS_PER_S, 0), 31);
    path_free(p);
}

static uint64_t losses_of(uint64_t seed, uint32_t packets)
{
    struct path *p =
        path_new(&(struct path_settings){.rate_mbit = 1000, .queue_ms = 50, .loss_percent = 10});
    uint64_t lost, now_ns = 0;
    size_t len;

    path_seed(p, seed);
    for (uint32_t i = 0; i < packets; i++, now_ns += NS_PER_MS) {
        send(p, now_ns, i);
        if (path_due(p, now_ns + NS_PER_MS, &len))
            path_pop(p);
    }
    lost = p->stats.dropped_loss;
    assert_int_equal(p->stats.packets, packets); /* they are lost on the wire, not before it */
    path_free(p);
    return lost;
}

static void test_losses(void **state)
{
    uint64_t lost = losses_of(1, 20000);

    (void)state;
    assert_true(lost > 1800 && lost < 2200);
    assert_int_equal(losses_of(1, 20000), lost);
    assert_int_not_equal(losses_of(2, 20000), lost);
}

/* What is under way is lost, too; after it the line is what it was. */
static void test_cut(void **state)
{
    struct path *p = path_new(&slow);

    (void)state;
    for (uint32_t i = 0; i < 10; i++)
        send(p, 0, i);
    assert_int_equal(receive(p, 55 * NS_PER_MS, 0), 5);
    p->cut = true;
    assert_int_equal(receive(p, 100 * NS_PER_MS, 5), 0);
    send(p, 100 * NS_PER_MS, 10);
    assert_int_equal(p->stats.dropped_cut, 6);
    p->cut = false;
    send(p, NS_PER_S, 11);
    assert_int_equal(receive(p, NS_PER_S + 51 * NS_PER_MS, 11), 1);
    path_free(p);
}

/* Far more than the ring holds, with lags of all kinds. */
static void test_ring_goes_round(void **state)
{
    struct path *p =
        path_new(&(struct path_settings){.rtt_ms = 100, .rate_mbit = 12, .queue_ms = 500});
    uint32_t sent = 0, received = 0;
    uint64_t now_ns = 0;

    (void)state;
    for (unsigned turn = 0; turn < 20000; turn++, now_ns += NS_PER_MS) {
        for (unsigned i = 0; i < turn / 100 % 3; i++)
            send(p, now_ns, sent++);
        if (turn % 7 == 0)
            received += receive(p, now_ns, received);
        assert_int_equal(p->stats.dropped_queue, 0);
    }
    received += receive(p, UINT64_MAX - 1, received);
    assert_int_equal(received, sent);
    assert_int_equal(p->stats.dropped_memory, 0);
    assert_true((uint64_t)sent * IP_BYTES > 10 * p->cap);
    path_free(p);
}

/* What is under way comes as it would have; order is kept. */
static void test_line_changes_under_way(void **state)
{
    static const struct path_settings longer = {.rtt_ms = 400, .rate_mbit = 24, .queue_ms = 10000};
    struct path *p = path_new(&slow);

    (void)state;
    for (uint32_t i = 0; i < 100; i++)
        send(p, 0, i);
    assert_int_equal(receive(p, 60 * NS_PER_MS, 0), 10);
    assert_int_equal(path_configure(p, &longer), 0);
    send(p, 100 * NS_PER_MS, 100);
    assert_int_equal(receive(p, 150 * NS_PER_MS, 10), 90);
    assert_int_equal(path_deadline(p), (UINT64_C(100) + 200) * NS_PER_MS + NS_PER_MS / 2);
    path_free(p);
}

static void test_settings_that_cannot_be(void **state)
{
    static const struct path_settings bad[] = {
        {.rtt_ms = -1, .rate_mbit = 10, .queue_ms = 10},
        {.rtt_ms = (double)NAN, .rate_mbit = 10, .queue_ms = 10},
        {.rate_mbit = 0, .queue_ms = 10},
        {.rate_mbit = (double)NAN, .queue_ms = 10},
        {.rate_mbit = 10, .queue_ms = 0},
        {.rate_mbit = 10, .queue_ms = 10, .loss_percent = 101},
        {.rate_mbit = 10, .queue_ms = 10, .loss_percent = (double)NAN},
        {.rtt_ms = 60000, .rate_mbit = 100000, .queue_ms = 10},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_non_null(path_settings_problem(&bad[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rate_and_delay),
        cmocka_unit_test(test_super_packet),
        cmocka_unit_test(test_queue_drops_its_tail),
        cmocka_unit_test(test_losses),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_ring_goes_round),
        cmocka_unit_test(test_line_changes_under_way),
        cmocka_unit_test(test_settings_that_cannot_be),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
