/* Echoes whatever many peers say, with one thread: echo URI COUNT [CHAIN.pem KEY.pem]. Prints where it listens, and ends after
 * COUNT streams, or datagrams over udp://. The stack's one descriptor stands in the program's own poll(), or in its epoll. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "courser.h"
#include "common.h"

enum { PEERS = 256 };

/* A stream, or a UDP session. FINISHED ones keep their slot until another wants it: their last bytes are on the way. */
static struct peer {
    enum { FREE, TALKING, FINISHED } is;
    uint64_t session;
    uint8_t held[4096];
    size_t from, to;
} peers[PEERS];
static int datagrams;
static long left;

/* Moves what can be moved now. */
static void echo(courser_stack *stack, struct peer *peer) {
    for (;;) {
        int64_t count;
        while (peer->from < peer->to) {
            count = courser_write(stack, peer->session, peer->held + peer->from, peer->to - peer->from);
            if (count == COURSER_WOULD_BLOCK)
                return;
            if (count < 0)
                goto gone;
            peer->from += (size_t)count;
            if (datagrams)
                left--;
        }
        peer->from = peer->to = 0;
        count = courser_read(stack, peer->session, peer->held, sizeof peer->held);
        if (count == COURSER_WOULD_BLOCK)
            return;
        if (count < 0)
            goto gone;
        if (count == 0 && !datagrams) {
            courser_finish(stack, peer->session);
            peer->is = FINISHED;
            left--;
            return;
        }
        peer->to = (size_t)count;
    }
gone:
    courser_close(stack, peer->session);
    peer->is = FREE;
    left--;
}

/* Takes in whoever waits at a listener, or at a QUIC connection, where streams do. */
static void take_in(courser_stack *stack, uint64_t at) {
    uint64_t session;
    while (courser_accept(stack, at, &session) == 0) {
        struct peer *free = NULL;
        int i;
        if (courser_is_connectable_listener(stack, session) == 1) {
            take_in(stack, session);
            continue;
        }
        for (i = 0; i < PEERS; i++)
            if (peers[i].is != TALKING && (!free || peers[i].is == FREE))
                free = &peers[i];
        if (!free) {
            courser_close(stack, session);
            continue;
        }
        if (free->is == FINISHED)
            courser_close(stack, free->session);
        free->is = TALKING;
        free->session = session;
        free->from = free->to = 0;
        echo(stack, free);
    }
}

int main(int argc, char **argv) {
    courser_stack *stack = NULL;
    uint64_t listener;
    uint8_t address[256];
    int64_t i;

    if (argc < 3) {
        fprintf(stderr, "usage: echo URI COUNT [CHAIN.pem KEY.pem]\n");
        return 2;
    }
    datagrams = protocol_of(argv[1]) == COURSER_UDP;
    left = atol(argv[2]);
    must("open", courser_open(NULL, &stack));
    must("create", courser_create(stack, protocol_of(argv[1]), &listener));
    if (argc > 4) {
        size_t chain_len, key_len;
        uint8_t *chain = file(argv[3], &chain_len), *key = file(argv[4], &key_len);
        must("certificate", courser_add_certificate(stack, listener, chain, chain_len, key, key_len));
        free(chain);
        free(key);
    }
    must("alpn", courser_set_alpn(stack, listener, "line"));
    must("bind", courser_bind(stack, listener, argv[1]));
    must("listen", courser_listen(stack, listener, 0));
    /* What is accepted does not block either. */
    must("option", courser_set_option(stack, listener, COURSER_NONBLOCKING, 1));
    must("address", courser_local_address(stack, listener, address, sizeof address));
    printf("%s\n", (char *)address);
    fflush(stdout);

    while (left > 0) {
        courser_event events[64];
        struct pollfd descriptor = {courser_descriptor(stack), POLLIN, 0};
        int64_t count = must("poll", courser_poll(stack, events, 64, 0));
        if (count == 0)
            poll(&descriptor, 1, -1);
        for (i = 0; i < count; i++) {
            int at;
            if (events[i].ready & COURSER_ACCEPT)
                take_in(stack, events[i].session);
            for (at = 0; at < PEERS; at++)
                if (peers[at].is == TALKING && peers[at].session == events[i].session)
                    echo(stack, &peers[at]);
        }
    }
    for (i = 0; i < PEERS; i++)
        if (peers[i].is == FINISHED) {
            courser_set_option(stack, peers[i].session, COURSER_NONBLOCKING, 0);
            courser_wait_acked(stack, peers[i].session);
        }
    courser_shut(stack);
    return 0;
}
