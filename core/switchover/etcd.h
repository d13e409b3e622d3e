/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One change of one key as etcd's HTTP/JSON gateway takes it (POST /v3/kv/txn), and its answer. Pure.
 *
 * The transaction compares the key's value with what is believed, and puts the new one, or else reads what is
 * there. Keys and values are base64 in its JSON.
 */
#ifndef FERRY_CORE_ETCD_H
#define FERRY_CORE_ETCD_H

#include <stdbool.h>

#include "core/base/error.h"

enum { ETCD_VALUE_BYTES = 64 };

/* "If @key holds @before (NULL: does not exist), put @after (NULL: delete it whatever it holds); else read it."
 * A JSON text of the caller's, or NULL without memory. */
char *etcd_transaction(const char *key, const char *before, const char *after);

/* -EPROTO: no answer of etcd's. @value: what was read, "" when there is no such key; only when not changed. */
int etcd_answer(const char *body, bool *ret_changed, char value[ETCD_VALUE_BYTES],
                struct error *err);

#endif
