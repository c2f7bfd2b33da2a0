/* What a careless program does: null pointers, sessions that never were or are no more, lengths behind nothing, endless texts,
 * many threads. Every such call answers with an error and its sentence. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "courser.h"
#include "common.h"

#define CHECK(what) ((what) ? (void)0 : (printf("line %d: %s; last error: %s\n", __LINE__, #what, courser_last_error()), exit(1)))
#define FAILS(call, code) (CHECK((call) == (code)), CHECK(courser_last_error()[0] != 0), CHECK(courser_strerror(code)[0] != 0))

/* Every call that names a session. */
static void each_fails(const courser_stack *stack, uint64_t session, int code) {
    uint8_t bytes[8] = {0};
    uint64_t number;
    courser_stats stats;
    courser_ended ended;
    FAILS(courser_set_alpn(stack, session, "a"), code);
    FAILS(courser_trust_roots(stack, session, bytes, 0), code);
    FAILS(courser_trust_anybody(stack, session), code);
    FAILS(courser_set_option(stack, session, COURSER_NONBLOCKING, 1), code);
    FAILS(courser_set_option(stack, session, COURSER_STREAMS, 1), code);
    FAILS(courser_connect(stack, session, "tcp://127.0.0.1:1"), code);
    FAILS(courser_bind(stack, session, "tcp://127.0.0.1:0"), code);
    FAILS(courser_listen(stack, session, 1), code);
    FAILS(courser_accept(stack, session, &number), code);
    FAILS(courser_accept_from(stack, session, &number, bytes, sizeof bytes), code);
    FAILS(courser_read(stack, session, bytes, sizeof bytes), code);
    FAILS(courser_write(stack, session, bytes, sizeof bytes), code);
    FAILS(courser_write_all(stack, session, bytes, sizeof bytes), code);
    FAILS(courser_finish(stack, session), code);
    FAILS(courser_wait_acked(stack, session), code);
    FAILS(courser_reset(stack, session, 1), code);
    FAILS(courser_stop(stack, session, 1), code);
    FAILS(courser_send_datagram(stack, session, bytes, sizeof bytes), code);
    FAILS(courser_recv_datagram(stack, session, bytes, sizeof bytes), code);
    FAILS(courser_close(stack, session), code);
    FAILS(courser_close_with(stack, session, 1, bytes, sizeof bytes), code);
    FAILS(courser_local_address(stack, session, bytes, sizeof bytes), code);
    FAILS(courser_peer_address(stack, session, bytes, sizeof bytes), code);
    FAILS(courser_state_of(stack, session), code);
    FAILS(courser_end(stack, session, bytes, sizeof bytes), code);
    FAILS(courser_end_of(stack, session, &ended, bytes, sizeof bytes), code);
    FAILS(courser_set_congestion(stack, session, "cubic"), code);
    FAILS(courser_dropped_datagrams(stack, session), code);
    FAILS(courser_stats_of(stack, session, &stats), code);
    FAILS(courser_number(stack, session, &number), code);
}

/* Buffers that are none, though a length says so, and texts that are none or have no end in sight. */
static void no_buffers(const courser_stack *stack, char *endless) {
    uint8_t byte = 0;
    uint64_t session;
    courser_ended ended;
    must("create", courser_create(stack, COURSER_TCP, &session));
    FAILS(courser_poll(stack, NULL, 4, 0), COURSER_ARGUMENT);
    FAILS(courser_read(stack, session, NULL, 4), COURSER_ARGUMENT);
    FAILS(courser_write(stack, session, NULL, 4), COURSER_ARGUMENT);
    FAILS(courser_write_all(stack, session, NULL, 4), COURSER_ARGUMENT);
    FAILS(courser_write(stack, session, &byte, SIZE_MAX), COURSER_ARGUMENT);
    FAILS(courser_read(stack, session, &byte, SIZE_MAX), COURSER_ARGUMENT);
    FAILS(courser_send_datagram(stack, session, NULL, 4), COURSER_ARGUMENT);
    FAILS(courser_recv_datagram(stack, session, NULL, 4), COURSER_ARGUMENT);
    FAILS(courser_trust_roots(stack, session, NULL, 4), COURSER_ARGUMENT);
    FAILS(courser_add_certificate(stack, session, NULL, 4, &byte, 1), COURSER_ARGUMENT);
    FAILS(courser_add_certificate(stack, session, &byte, 1, NULL, 4), COURSER_ARGUMENT);
    FAILS(courser_set_alpn(stack, session, NULL), COURSER_ARGUMENT);
    FAILS(courser_set_congestion(stack, session, NULL), COURSER_ARGUMENT);
    FAILS(courser_end_of(stack, session, NULL, &byte, 1), COURSER_ARGUMENT);
    FAILS(courser_end_of(stack, session, &ended, NULL, 4), COURSER_ARGUMENT);
    FAILS(courser_end_of(stack, session, &ended, &byte, 1), COURSER_UNFIT);
    FAILS(courser_connect(stack, session, NULL), COURSER_ARGUMENT);
    FAILS(courser_connect(stack, session, ""), COURSER_ADDRESS);
    FAILS(courser_connect(stack, session, endless), COURSER_ADDRESS);
    FAILS(courser_bind(stack, session, endless), COURSER_ADDRESS);
    FAILS(courser_connect_stream(stack, session, 12345, 0), COURSER_NO_SESSION);
    CHECK(courser_state_of(stack, session) == COURSER_FRESH);
    must("close", courser_close(stack, session));
    each_fails(stack, session, COURSER_NO_SESSION);
}

static void *use(void *shared) {
    courser_stack *stack = shared;
    int i;
    if (!shared)
        must("open", courser_open(NULL, &stack));
    for (i = 0; i < 50; i++) {
        uint64_t session, again;
        must("create", courser_create(stack, COURSER_UDP, &session));
        must("create", courser_create(stack, COURSER_UDP, &again));
        CHECK(session != again);
        must("close", courser_close(stack, session));
        FAILS(courser_close(stack, session), COURSER_NO_SESSION);
        /* The error is the thread's own. */
        CHECK(courser_close(stack, again) == 0);
    }
    if (!shared)
        courser_shut(stack);
    return NULL;
}

/* Eight threads with one stack, and eight with a stack each. */
static void threads(courser_stack *stack) {
    pthread_t thread[16];
    int i;
    for (i = 0; i < 16; i++)
        CHECK(pthread_create(&thread[i], NULL, use, i < 8 ? stack : NULL) == 0);
    for (i = 0; i < 16; i++)
        CHECK(pthread_join(thread[i], NULL) == 0);
}

int main(void) {
    enum { LONG = 1 << 20 };
    courser_stack *stack = NULL;
    char *endless = malloc(LONG);
    CHECK(endless != NULL);
    memset(endless, 'a', LONG - 1);
    memcpy(endless, "tcp://", 6);
    endless[LONG - 1] = 0;

    FAILS(courser_open(endless, &stack), COURSER_ATTACH);
    FAILS(courser_open("", &stack), COURSER_ATTACH);
    CHECK(stack == NULL);
    each_fails(NULL, 1, COURSER_ARGUMENT);
    FAILS(courser_descriptor(NULL), COURSER_ARGUMENT);
    FAILS(courser_reattach(NULL), COURSER_ARGUMENT);
    FAILS(courser_poll(NULL, NULL, 0, 0), COURSER_ARGUMENT);
    must("open", courser_open(NULL, &stack));
    each_fails(stack, 0, COURSER_NO_SESSION);
    each_fails(stack, UINT64_MAX, COURSER_NO_SESSION);
    no_buffers(stack, endless);
    threads(stack);
    courser_shut(stack);
    free(endless);
    printf("all mistakes answered\n");
    return 0;
}
