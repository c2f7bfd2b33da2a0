/* Says a line to a server and prints the answer: client URI LINE [ROOTS.pem]. The same over quic://, tcp:// and udp://. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "courser.h"
#include "common.h"

int main(int argc, char **argv) {
    courser_stack *stack = NULL;
    uint64_t connection, stream;
    char answer[4096];
    int64_t count;

    if (argc < 3) {
        fprintf(stderr, "usage: client URI LINE [ROOTS.pem]\n");
        return 2;
    }
    must("open", courser_open(NULL, &stack));
    must("create", courser_create(stack, protocol_of(argv[1]), &connection));
    must("alpn", courser_set_alpn(stack, connection, "line"));
    if (argc > 3) {
        size_t len;
        uint8_t *roots = file(argv[3], &len);
        must("trust", courser_trust_roots(stack, connection, roots, len));
        free(roots);
    }
    must("connect", courser_connect(stack, connection, argv[1]));
    stream = connection;
    if (courser_is_connectable_listener(stack, connection)) {
        must("create", courser_create(stack, COURSER_QUIC, &stream));
        must("stream", courser_connect_stream(stack, stream, connection, 0));
    }
    must("write", courser_write_all(stack, stream, (const uint8_t *)argv[2], strlen(argv[2])));
    if (protocol_of(argv[1]) == COURSER_UDP) {
        count = must("read", courser_read(stack, stream, (uint8_t *)answer, sizeof answer));
        fwrite(answer, 1, (size_t)count, stdout);
    } else {
        must("finish", courser_finish(stack, stream));
        while ((count = must("read", courser_read(stack, stream, (uint8_t *)answer, sizeof answer))) > 0)
            fwrite(answer, 1, (size_t)count, stdout);
        must("close", courser_close(stack, stream));
    }
    if (stream != connection)
        must("close", courser_close(stack, connection));
    courser_shut(stack);
    return 0;
}
