/* SPDX-License-Identifier: Apache-2.0 */
/* A recorded stream in words: one line an item, runs of pages on one line. */
#include <ctype.h>
#include <stdio.h>

#include "core/base/macros.h"
#include "memory/ram_parser.h"
#include "tools/ramdump/ramdump.h"

/* Like records that follow each other. */
struct run {
    enum ram_item item; /* NONE: no run */
    uint64_t offset, first, next;
};

static void print_run(struct run *run)
{
    if (run->item == RAM_ITEM_NONE)
        return;
    printf("%12lu  %-5s %lu", run->offset, run->item == RAM_ITEM_ZERO ? "zero" : "page",
           run->first);
    if (run->next - run->first > 1)
        printf(" to %lu (%lu)", run->next - 1, run->next - run->first);
    printf("\n");
    run->item = RAM_ITEM_NONE;
}

static void print_bytes(const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len && i < 24; i++)
        printf("%02x%s", data[i], i % 4 == 3 ? " " : "");
    printf(" ");
    for (size_t i = 0; i < len && i < 24; i++)
        printf("%c", isprint(data[i]) ? data[i] : '.');
    printf("%s  %zu bytes\n", len > 24 ? "..." : "", len);
}

int dump_stream(const uint8_t *data, size_t len)
{
    struct ram_parser_stats stats;
    struct ram_parser *p = NULL;
    struct run run = {0};
    size_t at = 0, n;
    int r = ram_parser_new(&p);

    if (r < 0)
        return r;
    for (; at < len; at += n) {
        const char *what = ram_parser_awaits(p);
        struct ram_page page;
        enum ram_item item;

        n = ram_parser_next(p, data + at, len - at, &item);
        if (item != RAM_ITEM_PAGE && item != RAM_ITEM_ZERO) {
            print_run(&run);
            printf("%12zu  %-18s ", at, what);
            print_bytes(data + at, n);
            if (item == RAM_ITEM_PAUSE)
                printf("%12s  ---\n", "");
            continue;
        }
        ram_parser_get_page(p, &page);
        if (item != run.item || !page.continues || page.number != run.next) {
            print_run(&run);
            run = (struct run){.item = item, .offset = at, .first = page.number};
            if (!page.continues)
                printf("%12zu  block %.*s\n", at, data[at + 8], data + at + 9);
        }
        run.next = page.number + 1;
        if (item == RAM_ITEM_PAGE) { /* its content; a recording may end in it */
            n += MIN(len - at - n, (size_t)RAM_PAGE_BYTES);
            ram_parser_take_page(p);
        }
    }
    print_run(&run);
    ram_parser_get_stats(p, &stats);
    printf("%lu pages, %lu zero, %lu xbzrle, %u parts; RAM of %lu bytes%s\n", stats.pages,
           stats.zero_pages, stats.xbzrle_pages, stats.parts, stats.total_bytes,
           ram_parser_is_lost(p) ? "; LOST" : "");
    ram_parser_free(p);
    return 0;
}
