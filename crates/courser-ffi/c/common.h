/* What both examples need. */
static inline int64_t must(const char *what, int64_t answer) {
    if (answer < 0) {
        fprintf(stderr, "%s: %s\n", what, courser_last_error());
        exit(1);
    }
    return answer;
}

static inline uint32_t protocol_of(const char *uri) {
    return !strncmp(uri, "tcp:", 4) ? COURSER_TCP : !strncmp(uri, "udp:", 4) ? COURSER_UDP : COURSER_QUIC;
}

static inline uint8_t *file(const char *path, size_t *len) {
    FILE *from = fopen(path, "rb");
    uint8_t *bytes = malloc(1 << 16);
    if (!from || !bytes) {
        perror(path);
        exit(1);
    }
    *len = fread(bytes, 1, 1 << 16, from);
    fclose(from);
    return bytes;
}
