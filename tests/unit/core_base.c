/* SPDX-License-Identifier: Apache-2.0 */
/* The small things everything stands on: the byte queue, the reader that stops at its end, errors, log levels. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/base64.h"
#include "core/base/buffer.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/wire.h"

/* A random history against counters: what goes in comes out, and memory is bounded by the most that was alive. */
static void test_buffer_is_a_queue(void **state)
{
    struct buffer b = {0};
    uint64_t in = 0, out = 0;
    uint8_t chunk[3000];
    size_t peak = 0;

    (void)state;
    srandom(3);
    for (int i = 0; i < 20000; i++) {
        size_t n = (size_t)random() % sizeof(chunk);

        if (random() % 2) {
            uint8_t *room = NULL;

            for (size_t k = 0; k < n; k++)
                chunk[k] = (uint8_t)((in + k) * 31);
            if (random() % 2) {
                assert_int_equal(buffer_append(&b, chunk, n), 0);
            } else {
                room = buffer_reserve(&b, n + (size_t)random() % 100);
                assert_non_null(room);
                memcpy(room, chunk, n);
                buffer_commit(&b, n);
            }
            in += n;
        } else {
            n = MIN(n, buffer_len(&b));
            for (size_t k = 0; k < n; k++)
                assert_int_equal(buffer_data(&b)[k], (uint8_t)((out + k) * 31));
            buffer_consume(&b, n);
            out += n;
        }
        assert_int_equal(buffer_len(&b), in - out);
        peak = MAX(peak, buffer_len(&b) + n + 100);
        assert_true(b.cap <= 2 * peak + 512);
    }
    buffer_done(&b);
}

static void test_buffer_edges(void **state)
{
    struct buffer b = {0};
    static const uint8_t big[400000];

    (void)state;
    assert_int_equal(buffer_len(&b), 0);
    assert_int_equal(buffer_append(&b, NULL, 0), 0);
    buffer_consume(&b, 0);
    buffer_clear(&b);
    assert_null(buffer_reserve(&b, SIZE_MAX));
    assert_int_equal(buffer_append(&b, "x", 1), 0);
    assert_null(buffer_reserve(&b, SIZE_MAX - 1));
    assert_int_equal(buffer_len(&b), 1); /* a refusal changes nothing */
    assert_int_equal(buffer_append(&b, big, sizeof(big)), 0);
    buffer_consume(&b, sizeof(big) + 1);
    assert_int_equal(b.cap, 0); /* a large one that is empty gives its memory back */
    buffer_done(&b);
}

static void test_integers(void **state)
{
    static const uint8_t wanted[] = {0x01, 0x02, 0x01, 0x02, 0x03, 0x04, 1, 2, 3, 4, 5, 6, 7, 8};
    uint8_t raw[14];

    (void)state;
    put_be16(raw, 0x0102);
    put_be32(raw + 2, 0x01020304);
    put_be64(raw + 6, 0x0102030405060708);
    assert_memory_equal(raw, wanted, sizeof(raw));
    assert_int_equal(get_be16(raw), 0x0102);
    assert_int_equal(get_be32(raw + 2), 0x01020304);
    assert_int_equal(get_be64(raw + 6), 0x0102030405060708);
}

static void test_reader_stops_at_its_end(void **state)
{
    static const uint8_t raw[] = {1, 0, 2, 0, 0, 0, 3, 9};
    struct wire_reader r = wire_reader_of(raw, sizeof(raw));

    (void)state;
    assert_int_equal(wire_u8(&r), 1);
    assert_int_equal(wire_u16(&r), 2);
    assert_int_equal(wire_u32(&r), 3);
    assert_int_equal(wire_left(&r), 1);
    assert_int_equal(wire_u64(&r), 0);
    assert_true(r.bad);
    assert_int_equal(wire_left(&r), 0);
    assert_int_equal(wire_u8(&r), 0); /* once bad, always bad */
    assert_null(wire_bytes(&r, 0));
    r = wire_reader_of(raw, sizeof(raw));
    assert_null(wire_bytes(&r, SIZE_MAX));
    assert_true(r.bad);
}

static void test_errors(void **state)
{
    char longer[2000], line[1024];
    struct error e = {0};

    (void)state;
    memset(longer, 'w', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    assert_false(error_is_set(&e));
    assert_int_equal(error_set(NULL, -ENOENT, "a", "b", "c"), -ENOENT);
    assert_int_equal(
        error_set(&e, -ENOENT, "find domain vm1", "is it defined here?", "no such %s", "domain"),
        -ENOENT);
    assert_string_equal(error_line(&e, line, sizeof(line)),
                        "find domain vm1: no such domain (is it defined here?)");
    error_prefix(&e, "drill");
    assert_string_equal(e.what, "drill: find domain vm1");
    assert_int_equal(error_set(&e, -EIO, "read", NULL, "%s", "why"), -EIO);
    assert_string_equal(error_line(&e, line, sizeof(line)), "read: why");
    assert_int_equal(error_set(&e, -EIO, longer, longer, "%s", longer),
                     -EIO); /* cut, not overrun */
    assert_int_equal(strlen(e.why), sizeof(e.why) - 1);
    error_prefix(&e, longer);
    assert_true(strlen(e.what) < sizeof(e.what));
    error_line(&e, line, 20);
    assert_int_equal(strlen(line), 19);
    error_clear(&e);
    assert_false(error_is_set(&e));
}

static void test_log_levels(void **state)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    static const enum log_level levels[] = {LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO,
                                            LOG_LEVEL_DEBUG};
    enum log_level level = LOG_LEVEL_INFO;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        assert_int_equal(log_level_parse(names[i], &level), 0);
        assert_int_equal(level, levels[i]);
    }
    assert_int_equal(log_level_parse("loud", &level), -EINVAL);
    assert_int_equal(log_level_parse("", &level), -EINVAL);
    assert_int_equal(level, LOG_LEVEL_DEBUG);
}

/* Runs @log with standard error in a pipe, and gives what it wrote. */
static void capture(void (*log)(void), char *ret, size_t cap)
{
    int pipe_fds[2], saved = dup(STDERR_FILENO);
    ssize_t n;

    assert_int_equal(pipe(pipe_fds), 0);
    assert_true(dup2(pipe_fds[1], STDERR_FILENO) >= 0);
    log();
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    close(pipe_fds[1]);
    close(saved);
    n = read(pipe_fds[0], ret, cap - 1);
    close(pipe_fds[0]);
    ret[MAX(n, 0)] = '\0';
}

static void log_some(void)
{
    static char longer[5000];

    memset(longer, 'w', sizeof(longer) - 1);
    log_debug("dropped");
    log_warning("kept %d", 1);
    log_error("%s", longer);
}

static void test_log_lines(void **state)
{
    char text[16384], *second;

    (void)state;
    unsetenv("JOURNAL_STREAM");
    log_set_level(LOG_LEVEL_INFO);
    capture(log_some, text, sizeof(text));
    assert_null(strstr(text, "dropped"));
    assert_non_null(strstr(text, "Z warning: kept 1\n"));
    second = strchr(text, '\n') + 1;
    assert_true(strlen(second) < 2100); /* cut, and still one line */
    assert_ptr_equal(strchr(second, '\n'), second + strlen(second) - 1);
    setenv("JOURNAL_STREAM", "1:2", 1);
    capture(log_some, text, sizeof(text));
    assert_int_equal(strncmp(text, "<4>kept 1\n<3>www", 16), 0);
    unsetenv("JOURNAL_STREAM");
}

static void test_base64(void **state)
{
    static const char *const bad[] = {
        "Zg", "Zg=", "Z===", "=g==", "Zg==Zg==", "Zm9vY!==", "Zm9v\n"};
    uint8_t data[BASE64_DATA_MAX], back[BASE64_DATA_MAX + 1];
    char text[BASE64_TEXT_BYTES(BASE64_DATA_MAX)];

    (void)state;
    base64_encode(text, "foob", 4);
    assert_string_equal(text, "Zm9vYg==");
    for (size_t len = 0; len <= sizeof(data); len++) {
        memset(data, (int)len, len);
        base64_encode(text, data, len);
        assert_int_equal(strlen(text) + 1, BASE64_TEXT_BYTES(len));
        assert_int_equal(base64_decode(text, strlen(text), back, sizeof(back)), len);
        assert_memory_equal(back, data, len);
        if (len > 0)
            assert_int_equal(base64_decode(text, strlen(text), back, len - 1), -EPROTO);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(base64_decode(bad[i], strlen(bad[i]), back, sizeof(back)), -EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buffer_is_a_queue),
        cmocka_unit_test(test_buffer_edges),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_reader_stops_at_its_end),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_base64),
        cmocka_unit_test(test_log_levels),
        cmocka_unit_test(test_log_lines),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
