//! The configuration that holds when nobody says otherwise, as a file with its explanations.

/// What `courser config default` prints. Read, it is what [`Config::default`](super::Config) has, with one site.
pub const DEFAULT_TEXT: &str = r#"# Configuration of `courser serve`, `courser proxy` and `courser stack`. All values are the defaults; lines that begin
# with `#` and a key are possible, but not set. Paths begin at the folder of this file.
# Flags win over the environment (COURSER_...), the environment over this file.

[server]
listen = ["127.0.0.1:4433"]     # each address for TCP (HTTP/1.1, HTTP/2) and UDP (HTTP/3); "[::]:443" is for IPv4 too, unless
                                # an address of IPv4 with that port stands beside it
# certificate = "cert.pem"      # without one a throw-away certificate is made
# key = "key.pem"
# secret = "secret"             # 32 bytes, made when they are not there: clients of a server that crashed learn of it from the next
                                # one at once, instead of waiting
http3 = true
early-data = false              # take requests over HTTP/3 before the handshake (0-RTT): one round trip less, but who is on the path
                                # can repeat GET and HEAD. Proxies have such requests wait, unless they say otherwise below.
                                # A change counts after a restart
alt-svc = "24h"                 # how long browsers remember that there is HTTP/3; "0s" does not tell them
# metrics = "127.0.0.1:9433"    # figures for Prometheus, without TLS
drain = "10s"                   # how long requests may go on after SIGTERM
# user = "www-data"             # who the process becomes once all addresses are bound
# group = "www-data"

[log]
access = "-"                    # a file, "-" for standard output, "off"
format = "common"               # common, combined, json

[limits]
connections = 4096              # TCP connections at once
streams = 128                   # requests at once on one connection
fields = "64K"                  # bytes of a request's fields
handshake = "10s"               # for TLS
idle = "60s"                    # for the fields of a request, and between requests
stalled = "60s"                 # a client that takes nothing of its answer

# CONNECT makes tunnels to these places, for whoever can reach the server; without any it is refused.
[connect]
allow = []                      # "db.example:5432", "*.example.org:443", "[2001:db8::1]:22"
tunnels = 256                   # at once
connect-timeout = "5s"
idle-timeout = "10m"            # a tunnel in which nothing goes either way

# A site is what is served under some names. The one without hosts answers to all other names.
[[site]]
# hosts = ["example.org", "*.example.org"]
# certificate = "example.pem"   # for these names; without one the server's
# key = "example.key"

[site.files]
root = "."
index = ["index.html"]
listing = false                 # shows folders that have no index file
hidden = false                  # names that begin with a dot; .well-known always is served
symlinks = true                 # as long as they stay in the folder
precompressed = true            # NAME.br, NAME.zst and NAME.gz in place of NAME
# fallback = "/index.html"      # for pages that are not there: the one page of an application
# types = { wasm = "application/wasm" }

# [site.headers]                # of each answer; an empty value takes a field away
# strict-transport-security = "max-age=63072000"

# A site has files or a proxy:
# [site.proxy]
# origin = "http://127.0.0.1:8080"
# ca = "origin-ca.pem"          # for https; without one the system's
# insecure = false              # the origin's certificate is not checked
# http2 = false                 # speak HTTP/2 to the origin, not HTTP/1.1
# preserve-host = false         # ask the origin by the client's name for it
# trust-forwarded = false       # believe Forwarded and X-Forwarded-... of clients
# early-data = false            # pass requests of 0-RTT on at once, with Early-Data: 1; the origin has to know of that (RFC 8470)
# upgrades = true               # pass WebSockets on (not with http2)
# tunnels = 256                 # WebSockets at once, beside requests
# connections = 256             # requests at once
# idle-connections = 32
# connect-timeout = "5s"
# response-timeout = "60s"
# idle-timeout = "60s"

# The host stack: QUIC, TCP and UDP for other programs of this machine (`courser stack`).
[stack]
# socket = "/run/courser.sock"
mode = "660"                    # who may open the socket
users = []                      # numbers of users who may attach; empty: whoever may open the socket
enabled = true                  # otherwise `courser ctl session enable` has to be said first
drain = "10s"                   # how long applications may go on after SIGTERM
applications = 1024             # at once
per-user = 256
endpoints = 64                  # of one application: listeners and diallers, a socket and a thread each
workers = 64                    # of all its endpoints
sessions = 65536                # at each worker
memory = "256M"                 # shared memory of one application
certificates = 64
# trace = "/var/log/courser"    # qlog files of all connections
# Programs that attach read this file too, when COURSER_CONFIG names it: `socket`, and
# name = "my-program"           # what they are called in `show applications`
# look-us = 50                  # how long they look for news before they sleep
# Where a user may listen; those of whom nothing is said may listen anywhere:
# [[stack.allow]]
# user = 1000
# listen = ["quic://0.0.0.0:4433", "tcp://[::1]:*", "udp://*:53"]
"#;
