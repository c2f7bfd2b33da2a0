/* Answers one client with what it says: server URI [CHAIN.pem KEY.pem]. Prints where it listens. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "courser.h"
#include "common.h"

int main(int argc, char **argv) {
    courser_stack *stack = NULL;
    uint64_t listener, connection, stream;
    uint8_t heard[4096];
    int64_t count;

    if (argc < 2) {
        fprintf(stderr, "usage: server URI [CHAIN.pem KEY.pem]\n");
        return 2;
    }
    must("open", courser_open(NULL, &stack));
    must("create", courser_create(stack, protocol_of(argv[1]), &listener));
    if (argc > 3) {
        size_t chain_len, key_len;
        uint8_t *chain = file(argv[2], &chain_len), *key = file(argv[3], &key_len);
        must("certificate", courser_add_certificate(stack, listener, chain, chain_len, key, key_len));
        free(chain);
        free(key);
    }
    must("alpn", courser_set_alpn(stack, listener, "line"));
    must("bind", courser_bind(stack, listener, argv[1]));
    must("listen", courser_listen(stack, listener, 0));
    must("address", courser_local_address(stack, listener, heard, sizeof heard));
    printf("%s\n", (char *)heard);
    fflush(stdout);

    must("accept", courser_accept(stack, listener, &connection));
    stream = connection;
    if (courser_is_connectable_listener(stack, connection))
        must("accept", courser_accept(stack, connection, &stream));
    while ((count = must("read", courser_read(stack, stream, heard, sizeof heard))) > 0) {
        must("write", courser_write_all(stack, stream, heard, (size_t)count));
        if (protocol_of(argv[1]) == COURSER_UDP)
            break;
    }
    if (protocol_of(argv[1]) != COURSER_UDP) {
        must("finish", courser_finish(stack, stream));
        must("acknowledged", courser_wait_acked(stack, stream));
        must("close", courser_close(stack, stream));
    }
    courser_shut(stack);
    return 0;
}
