/* What calls answer that make no sense, and how sessions that do not block are used. No peer is needed: TCP to itself. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "courser.h"
#include "common.h"

#define CHECK(what) ((what) ? (void)0 : (printf("line %d: %s; last error: %s\n", __LINE__, #what, courser_last_error()), exit(1)))

/* Waits until one of these can be done with the session. */
static void until(courser_stack *stack, uint64_t session, uint32_t ready) {
    for (;;) {
        courser_event event;
        /* One at a time: what does not fit is told next time. */
        CHECK(courser_poll(stack, &event, 1, 60000) == 1);
        if (event.session == session && (event.ready & ready))
            return;
    }
}

int main(void) {
    courser_stack *stack = NULL;
    uint64_t listener, client, server, number, handle;
    uint8_t text[256], byte;
    char uri[300];
    courser_stats stats;
    int64_t answer;

    CHECK(courser_open("/nowhere/at/all", &stack) == COURSER_ATTACH && stack == NULL);
    CHECK(strstr(courser_last_error(), "/nowhere/at/all"));
    CHECK(courser_open("\xff", &stack) == COURSER_ARGUMENT);
    CHECK(courser_open(NULL, NULL) == COURSER_ARGUMENT);
    CHECK(courser_create(NULL, COURSER_TCP, &listener) == COURSER_ARGUMENT);
    courser_shut(NULL);

    must("open", courser_open(NULL, &stack));
    CHECK(courser_create(stack, 99, &listener) == COURSER_ARGUMENT);
    CHECK(courser_create(stack, COURSER_TCP, NULL) == COURSER_ARGUMENT);
    CHECK(courser_read(stack, 12345, text, sizeof text) == COURSER_NO_SESSION);
    CHECK(!strcmp(courser_strerror(COURSER_NO_SESSION), "there is no such session"));
    CHECK(courser_strerror(12345) && courser_strerror(-12345));

    must("create", courser_create(stack, COURSER_TCP, &listener));
    CHECK(courser_state_of(stack, listener) == COURSER_FRESH);
    CHECK(courser_set_option(stack, listener, 99, 0) == COURSER_ARGUMENT);
    CHECK(courser_set_option(stack, listener, COURSER_STREAMS, -1) == COURSER_ARGUMENT);
    CHECK(courser_bind(stack, listener, NULL) == COURSER_ARGUMENT);
    CHECK(courser_bind(stack, listener, "tcp://nonsense") == COURSER_ADDRESS);
    CHECK(courser_accept(stack, listener, &server) == COURSER_UNFIT);
    must("bind", courser_bind(stack, listener, "tcp://127.0.0.1:0"));
    must("listen", courser_listen(stack, listener, 0));
    CHECK(courser_state_of(stack, listener) == COURSER_LISTENING);
    CHECK(courser_is_connectable_listener(stack, listener) == 1);
    answer = must("address", courser_local_address(stack, listener, text, sizeof text));
    CHECK((size_t)answer == strlen((char *)text) && courser_local_address(stack, listener, NULL, 0) == answer);
    CHECK(courser_local_address(stack, listener, &byte, 1) == answer && byte == 0);
    snprintf(uri, sizeof uri, "tcp://%s", (char *)text);

    must("option", courser_set_option(stack, listener, COURSER_NONBLOCKING, 1));
    CHECK(courser_accept(stack, listener, &server) == COURSER_WOULD_BLOCK);
    must("create", courser_create(stack, COURSER_TCP, &client));
    must("connect", courser_connect(stack, client, uri));
    until(stack, listener, COURSER_ACCEPT);
    answer = must("accept", courser_accept_from(stack, listener, &server, text, sizeof text));
    CHECK((size_t)answer == strlen((char *)text) && strncmp((char *)text, "127.0.0.1:", 10) == 0);
    must("peer", courser_peer_address(stack, client, text, sizeof text));
    CHECK(strcmp((char *)text, uri + strlen("tcp://")) == 0);
    CHECK(courser_is_connectable_listener(stack, server) == 0 && server != client);
    must("create", courser_create(stack, COURSER_TCP, &number));
    CHECK(courser_connect_stream(stack, number, client, 0) == COURSER_UNFIT);
    must("close", courser_close(stack, number));

    /* Accepted sessions are as their listener is. */
    CHECK(courser_read(stack, server, text, sizeof text) == COURSER_WOULD_BLOCK);
    must("write", courser_write_all(stack, client, (const uint8_t *)"hello", 5));
    until(stack, server, COURSER_READ);
    CHECK(courser_read(stack, server, text, sizeof text) == 5 && !memcmp(text, "hello", 5));
    must("stats", courser_stats_of(stack, client, &stats));
    CHECK(stats.written_bytes == 5);
    CHECK(courser_stats_of(stack, client, NULL) == COURSER_ARGUMENT);
    must("handle", courser_handle(stack, client, &handle));
    must("number", courser_number(stack, client, &number));
    CHECK(handle != 0 && courser_descriptor(stack) >= 0);
    CHECK(courser_end(stack, client, text, sizeof text) == 0);

    must("option", courser_set_option(stack, client, COURSER_TIMEOUT_MS, 20));
    CHECK(courser_read(stack, client, text, sizeof text) == COURSER_TIMED_OUT);
    must("reset", courser_reset(stack, server, 1));
    must("option", courser_set_option(stack, client, COURSER_TIMEOUT_MS, -1));
    answer = courser_read(stack, client, text, sizeof text);
    CHECK(answer == COURSER_RESET || answer == COURSER_ENDED);
    if (answer == COURSER_ENDED) {
        courser_ended ended;
        must("end", courser_end_of(stack, client, &ended, text, sizeof text));
        CHECK(ended.code == courser_last_code());
    }
    /* The host is there: nothing is to be attached anew. */
    must("reattach", courser_reattach(stack));
    must("close", courser_close(stack, client));
    CHECK(courser_close(stack, client) == COURSER_NO_SESSION);
    courser_shut(stack);
    printf("all calls answered\n");
    return 0;
}
