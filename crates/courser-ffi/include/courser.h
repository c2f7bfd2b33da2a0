/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#ifndef COURSER_H
#define COURSER_H

#include <stddef.h>
#include <stdint.h>

/*
 * Sessions over QUIC, TCP and UDP for programs in C, by calls like those of sockets.
 *
 * A stack is the program's place at a host: a service in another process, or, with the library that has the engine, one in
 * this process. Sessions live in a stack; their numbers begin with 1 and are never used again. In QUIC a connection is a
 * session from which the peer's streams are accepted, and courser_connect_stream opens a stream in it.
 *
 * Calls return 0, or a count, or a negative courser_error; courser_last_error tells in a sentence what went wrong last in
 * the calling thread. A stack may be used by any number of threads, each of which may block in a call of its own; only
 * courser_shut needs that no other call goes on. Memory that is passed is used during the call only.
 */

/**
 * There is something to read.
 */
#define COURSER_READ 1

/**
 * Something can be written, or opened in a connection.
 */
#define COURSER_WRITE 2

/**
 * There is something to accept.
 */
#define COURSER_ACCEPT 4

/**
 * The session is over.
 */
#define COURSER_HANGUP 8

/**
 * It did not end well.
 */
#define COURSER_ERROR 16

/**
 * What a call failed with.
 */
typedef enum {
  /**
   * It did not fail.
   */
  COURSER_OK = 0,
  /**
   * It would have to wait, and the session does not block.
   */
  COURSER_WOULD_BLOCK = -1,
  /**
   * The session's time for a call ran out.
   */
  COURSER_TIMED_OUT = -2,
  /**
   * There is no session of that number any more.
   */
  COURSER_NO_SESSION = -3,
  /**
   * A session of that kind, or in that state, cannot do that.
   */
  COURSER_UNFIT = -4,
  /**
   * The address makes no sense.
   */
  COURSER_ADDRESS = -5,
  /**
   * The session ended, or was not opened; courser_end tells why.
   */
  COURSER_ENDED = -6,
  /**
   * The peer gave up sending.
   */
  COURSER_RESET = -7,
  /**
   * The peer does not want what is sent.
   */
  COURSER_STOPPED = -8,
  /**
   * The datagram is too long, or the peer takes none.
   */
  COURSER_DATAGRAM = -9,
  /**
   * The host turned the request down.
   */
  COURSER_REFUSED = -10,
  /**
   * There are as many sessions as there may be.
   */
  COURSER_FULL = -11,
  /**
   * Nobody serves at the socket, or it may not be used.
   */
  COURSER_ATTACH = -12,
  /**
   * The service is gone, and all sessions with it.
   */
  COURSER_SERVICE_GONE = -13,
  /**
   * The configuration cannot be used.
   */
  COURSER_CONFIG = -14,
  /**
   * The operating system refused.
   */
  COURSER_SYSTEM = -15,
  /**
   * An argument makes no sense: a null pointer, text that is not UTF-8, an unknown constant.
   */
  COURSER_ARGUMENT = -16,
  /**
   * An error of the library.
   */
  COURSER_INTERNAL = -17,
} courser_error;

/**
 * What carries a session.
 */
typedef enum {
  /**
   * Connections with streams and datagrams, encrypted.
   */
  COURSER_QUIC = 0,
  /**
   * One stream for each connection, not encrypted.
   */
  COURSER_TCP = 1,
  /**
   * Datagrams, not encrypted.
   */
  COURSER_UDP = 2,
} courser_protocol;

/**
 * Settings of a session, for courser_set_option.
 */
typedef enum {
  /**
   * Milliseconds of silence after which a connection is over.
   */
  COURSER_IDLE_TIMEOUT_MS = 0,
  /**
   * Milliseconds of silence after which a packet keeps the connection.
   */
  COURSER_KEEP_ALIVE_MS = 1,
  /**
   * Whether unreliable datagrams are taken: 0 or 1.
   */
  COURSER_DATAGRAMS = 2,
  /**
   * How many workers a listener has.
   */
  COURSER_WORKERS = 3,
  /**
   * How many streams the peer may have open at a time, of each direction.
   */
  COURSER_STREAMS = 4,
  /**
   * Whether calls answer COURSER_WOULD_BLOCK instead of waiting: 0 or 1. At any time.
   */
  COURSER_NONBLOCKING = 5,
  /**
   * Milliseconds that a call may take; negative: for ever. At any time.
   */
  COURSER_TIMEOUT_MS = 6,
} courser_option;

/**
 * What a session is at present.
 */
typedef enum {
  /**
   * Created.
   */
  COURSER_FRESH = 0,
  /**
   * It has an address and does not listen.
   */
  COURSER_BOUND = 1,
  /**
   * It takes connections.
   */
  COURSER_LISTENING = 2,
  /**
   * It is being opened.
   */
  COURSER_OPENING = 3,
  /**
   * In use.
   */
  COURSER_OPEN = 4,
  /**
   * Over. What arrived before can still be read.
   */
  COURSER_OVER = 5,
} courser_state;

/**
 * Why a session ended or could not be opened.
 */
typedef enum {
  /**
   * It did all that it was there for; the peer has everything.
   */
  COURSER_WHY_DONE = 0,
  /**
   * It was given up before everything had arrived, here or by the peer.
   */
  COURSER_WHY_GIVEN_UP = 1,
  /**
   * The program closed it.
   */
  COURSER_WHY_CLOSED_HERE = 2,
  /**
   * The peer's program closed it; code and text are the peer's.
   */
  COURSER_WHY_CLOSED_BY_PEER = 3,
  /**
   * The peer broke a rule.
   */
  COURSER_WHY_PEER_BROKE = 4,
  /**
   * The peer's transport closed it; the code is a transport code.
   */
  COURSER_WHY_PEER_TRANSPORT = 5,
  /**
   * TLS failed; the code is the alert.
   */
  COURSER_WHY_TLS = 6,
  /**
   * Nothing was heard for the idle timeout.
   */
  COURSER_WHY_IDLE = 7,
  /**
   * The handshake took too long.
   */
  COURSER_WHY_HANDSHAKE_TIMEOUT = 8,
  /**
   * The peer lost its state.
   */
  COURSER_WHY_PEER_RESET = 9,
  /**
   * There is no common version of the protocol.
   */
  COURSER_WHY_VERSION = 10,
  /**
   * The server did not want the connection.
   */
  COURSER_WHY_DECLINED = 11,
  /**
   * An error of the host.
   */
  COURSER_WHY_OWN_ERROR = 12,
  /**
   * A connection that came in had gone by the time the program wanted it.
   */
  COURSER_WHY_TOO_LATE = 13,
  /**
   * There is no room for another session.
   */
  COURSER_WHY_NO_ROOM = 14,
  /**
   * Too many streams wait to be opened.
   */
  COURSER_WHY_TOO_MANY_WAITING = 15,
  /**
   * Nobody takes connections there.
   */
  COURSER_WHY_NO_LISTENER = 16,
  /**
   * The settings were not registered.
   */
  COURSER_WHY_NO_PROFILE = 17,
  /**
   * The connection that a stream was to be opened in is over.
   */
  COURSER_WHY_CONNECTION_OVER = 18,
  /**
   * No new connections are taken any more; those that there are go on.
   */
  COURSER_WHY_DRAINING = 19,
  /**
   * Nobody answers at the address, or no way leads there.
   */
  COURSER_WHY_UNREACHABLE = 20,
  /**
   * The system refused; the text says what.
   */
  COURSER_WHY_SYSTEM_REFUSED = 21,
} courser_reason;

/**
 * A program's place at a host; what C has a pointer to.
 */
typedef struct courser_stack courser_stack;

/**
 * A session to which something happened.
 */
typedef struct {
  /**
   * Which.
   */
  uint64_t session;
  /**
   * What can be done with it: COURSER_READ and so on.
   */
  uint32_t ready;
} courser_event;

/**
 * How a session ended.
 */
typedef struct {
  /**
   * One of courser_reason.
   */
  uint32_t reason;
  /**
   * The code that came with it; 0 when there is none.
   */
  uint64_t code;
} courser_ended;

/**
 * Figures of a session. Those that make no sense for its kind are 0.
 */
typedef struct {
  /**
   * Bytes that the program wrote.
   */
  uint64_t written_bytes;
  /**
   * Bytes that the program was given.
   */
  uint64_t read_bytes;
  /**
   * Datagrams sent.
   */
  uint64_t datagrams_sent;
  /**
   * Datagrams received.
   */
  uint64_t datagrams_received;
  /**
   * Packets declared lost, or datagrams that there was no room for.
   */
  uint64_t packets_lost;
  /**
   * Smoothed round-trip time in microseconds.
   */
  uint64_t rtt_us;
  /**
   * Congestion window in bytes.
   */
  uint64_t congestion_window_bytes;
  /**
   * Sessions that live inside this one.
   */
  uint64_t children;
} courser_stats;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * A place at a host: at the service whose socket that is; for a null pointer where COURSER_SOCKET or the file that
 * COURSER_CONFIG names say. The library with the engine inside hosts in this process for a null pointer. courser_shut ends it.
 */
int courser_open(const char *socket,
                 courser_stack **stack);

/**
 * Ends a stack and everything in it at once. No other call with it may go on or follow. A null pointer is nothing to end.
 */
void courser_shut(courser_stack *stack);

/**
 * The sentence of an error's number. It lives as long as the program.
 */
const char *courser_strerror(int code);

/**
 * What went wrong last in the calling thread; valid until the thread's next call that fails.
 */
const char *courser_last_error(void);

/**
 * The code that the peer gave, when the thread's last failed call answered COURSER_RESET, COURSER_STOPPED or COURSER_ENDED; 0
 * otherwise.
 */
uint64_t courser_last_code(void);

/**
 * Attaches anew after COURSER_SERVICE_GONE, to whoever listens at the socket now; COURSER_ATTACH while nobody does. Listeners
 * and settings come back, within a moment; connections and streams are over. A service that makes way for its successor is followed
 * without this call. Does nothing while the service is there. A host in this process has nothing to attach to:
 * COURSER_UNFIT once it takes nothing more.
 */
int courser_reattach(const courser_stack *stack);

/**
 * A session of one of courser_protocol. It blocks until it is told otherwise.
 */
int courser_create(const courser_stack *stack, uint32_t protocol, uint64_t *session);

/**
 * A descriptor of the stack's, to be waited for with others: it becomes readable when there is news after courser_poll
 * returned 0.
 */
int courser_descriptor(const courser_stack *stack);

/**
 * Waits for so many milliseconds (negative: for ever) until something happens to sessions; of how many it tells. Each
 * event is told once: use the session until it answers COURSER_WOULD_BLOCK.
 */
int64_t courser_poll(const courser_stack *stack, courser_event *events, size_t len, int64_t timeout_ms);

/**
 * What a listener proves itself with: its certificate with those that lead to a root, and its key, both in PEM. Several
 * may be added. Before courser_bind.
 */
int courser_add_certificate(const courser_stack *stack,
                            uint64_t session,
                            const uint8_t *chain,
                            size_t chain_len,
                            const uint8_t *key,
                            size_t key_len);

/**
 * The application's protocols (ALPN), the most wanted first, with commas between them.
 */
int courser_set_alpn(const courser_stack *stack, uint64_t session, const char *names);

/**
 * Whose certificates are believed when the session connects: those under these roots, in PEM. Without any: those under the
 * system's, which is how a session begins.
 */
int courser_trust_roots(const courser_stack *stack,
                        uint64_t session,
                        const uint8_t *pem,
                        size_t len);

/**
 * Believes every certificate: anybody on the way can read and change everything. For tests.
 */
int courser_trust_anybody(const courser_stack *stack, uint64_t session);

/**
 * A setting, one of courser_option. Unless it says otherwise, before the session is connected or bound.
 */
int courser_set_option(const courser_stack *stack, uint64_t session, uint32_t option, int64_t value);

/**
 * The name of the congestion controller: "cubic", "bbr" or "adaptive". Before the session is connected or bound;
 * the host judges it then.
 */
int courser_set_congestion(const courser_stack *stack, uint64_t session, const char *name);

/**
 * Connects to `quic://host:port`, `tcp://host:port` or `udp://host:port`.
 */
int courser_connect(const courser_stack *stack, uint64_t session, const char *uri);

/**
 * Opens a stream in an established QUIC connection; from this end only when `one_way` is not 0.
 */
int courser_connect_stream(const courser_stack *stack, uint64_t session, uint64_t connection, int one_way);

/**
 * Gives a session the address at which it is to listen. Port 0 lets the system choose; courser_local_address tells.
 */
int courser_bind(const courser_stack *stack, uint64_t session, const char *uri);

/**
 * Takes connections from now on. So many wait to be accepted at most; 0 for the usual number.
 */
int courser_listen(const courser_stack *stack, uint64_t session, uint32_t backlog);

/**
 * What came in: on a listener the next connection, on a QUIC connection the next stream of the peer.
 */
int courser_accept(const courser_stack *stack, uint64_t session, uint64_t *accepted);

/**
 * The same as courser_accept, with where the peer is, as text with a zero behind it, cut to fit; the text's whole length.
 */
int64_t courser_accept_from(const courser_stack *stack,
                            uint64_t session,
                            uint64_t *accepted,
                            uint8_t *into,
                            size_t len);

/**
 * Whether sessions can be accepted from it: 1 for a listener and a QUIC connection, 0 for others.
 */
int courser_is_connectable_listener(const courser_stack *stack, uint64_t session);

/**
 * Reads bytes of a stream, or one datagram of a UDP session; how many. 0 is the end of a stream.
 */
int64_t courser_read(const courser_stack *stack, uint64_t session, uint8_t *into, size_t len);

/**
 * Writes bytes to a stream, or one datagram to a UDP session; how many were taken.
 */
int64_t courser_write(const courser_stack *stack, uint64_t session, const uint8_t *data, size_t len);

/**
 * Writes all of it. For sessions that do not block courser_write says how far it came.
 */
int courser_write_all(const courser_stack *stack, uint64_t session, const uint8_t *data, size_t len);

/**
 * The stream ends after what was written; what the peer sends can still be read.
 */
int courser_finish(const courser_stack *stack, uint64_t session);

/**
 * Waits until the peer has everything that was written to a finished stream.
 */
int courser_wait_acked(const courser_stack *stack, uint64_t session);

/**
 * Gives up sending, with a code for the peer.
 */
int courser_reset(const courser_stack *stack, uint64_t session, uint64_t code);

/**
 * Asks the peer to give up sending, with a code.
 */
int courser_stop(const courser_stack *stack, uint64_t session, uint64_t code);

/**
 * Sends one unreliable datagram over a QUIC connection or a UDP session.
 */
int courser_send_datagram(const courser_stack *stack, uint64_t session, const uint8_t *data, size_t len);

/**
 * Takes the next datagram that came in; how many of its bytes fitted.
 */
int64_t courser_recv_datagram(const courser_stack *stack, uint64_t session, uint8_t *into, size_t len);

/**
 * How many datagrams of a connection were dropped at this end: nobody read them in time, or they could not be sent.
 */
int64_t courser_dropped_datagrams(const courser_stack *stack, uint64_t session);

/**
 * Ends a session. What was written to a stream still arrives.
 */
int courser_close(const courser_stack *stack, uint64_t session);

/**
 * Ends a session at once, with a code and a reason for the peer.
 */
int courser_close_with(const courser_stack *stack, uint64_t session, uint64_t code, const uint8_t *reason, size_t len);

/**
 * Where the session is bound, as text with a zero behind it, cut to fit; its whole length.
 */
int64_t courser_local_address(const courser_stack *stack, uint64_t session, uint8_t *into, size_t len);

/**
 * Where the peer is, likewise: of what was accepted as well.
 */
int64_t courser_peer_address(const courser_stack *stack, uint64_t session, uint8_t *into, size_t len);

/**
 * What the session is at present: one of courser_state.
 */
int courser_state_of(const courser_stack *stack, uint64_t session);

/**
 * Why the session is over, as text with a zero behind it, cut to fit; its whole length. 0: it is not over.
 */
int64_t courser_end(const courser_stack *stack, uint64_t session, uint8_t *into, size_t len);

/**
 * The same in numbers, with what the peer said of it as it came, without a zero behind it, cut to fit; the whole length of
 * that. A peer's words are not to be trusted. COURSER_UNFIT: the session is not over.
 */
int64_t courser_end_of(const courser_stack *stack,
                       uint64_t session,
                       courser_ended *ended,
                       uint8_t *into,
                       size_t len);

/**
 * Figures of an open session.
 */
int courser_stats_of(const courser_stack *stack, uint64_t session, courser_stats *stats);

/**
 * What both ends call a QUIC stream; 0 for other sessions.
 */
int courser_number(const courser_stack *stack, uint64_t session, uint64_t *number);

/**
 * What operators see the session by; 0 before it is open.
 */
int courser_handle(const courser_stack *stack, uint64_t session, uint64_t *handle);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* COURSER_H */
