//! `courser get`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use courser_fetch::options::{name_server, resolve_entry};

use super::units;

/// Flags of downloads.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXIT_CODES, after_long_help = LONG)]
pub struct GetArgs {
    /// What to fetch: https://HOST/PATH, also HOST:PORT; several are fetched at the same time.
    #[arg(value_name = "URL", required = true)]
    pub urls: Vec<String>,
    /// Write the answer to this file; `-` is standard output. Once for each URL, in their order.
    #[arg(short, long, value_name = "FILE")]
    pub output: Vec<String>,
    /// The folder of files that are named after their URLs.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub output_dir: PathBuf,
    /// Throw away what an earlier run left of a file.
    #[arg(long)]
    pub no_resume: bool,
    /// Jobs at the same time.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub parallel: u16,
    /// What is asked.
    #[command(flatten)]
    pub request: RequestArgs,
    /// How long, and how often.
    #[command(flatten)]
    pub patience: PatienceArgs,
    /// Over what.
    #[command(flatten)]
    pub way: WayArgs,
}

/// What is asked of the server.
#[derive(Args, Clone, Debug)]
pub struct RequestArgs {
    /// Ask for the header section only, and print it.
    #[arg(short = 'I', long, conflicts_with_all = ["data", "upload_file", "request"], help_heading = "Request")]
    pub head: bool,
    /// A field, like `Accept: text/html`; `Accept:` leaves out the usual one.
    #[arg(short = 'H', long, value_name = "FIELD", help_heading = "Request")]
    pub header: Vec<String>,
    /// Send this with POST; several are joined with `&`. `@FILE` sends a file as it is. The answer goes to standard output.
    #[arg(short, long, value_name = "DATA", conflicts_with = "upload_file", help_heading = "Request")]
    pub data: Vec<String>,
    /// Send this file with PUT; a URL that ends with a slash gets its name. The answer goes to standard output.
    #[arg(short = 'T', long, value_name = "FILE", help_heading = "Request")]
    pub upload_file: Option<PathBuf>,
    /// The method, when it is another one.
    #[arg(short = 'X', long, value_name = "METHOD", help_heading = "Request")]
    pub request: Option<String>,
    /// Follow redirects.
    #[arg(short = 'L', long, help_heading = "Request")]
    pub location: bool,
    /// How many.
    #[arg(long, value_name = "N", default_value_t = 10, help_heading = "Request")]
    pub max_redirs: u32,
    /// Let the server compress (zstd, br, gzip, deflate), and undo it. Such a file cannot be resumed.
    #[arg(long, help_heading = "Request")]
    pub compressed: bool,
}

/// How long, and how often.
#[derive(Args, Clone, Debug)]
pub struct PatienceArgs {
    /// Try again so often when the server is busy or the network fails, if that does no harm.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Patience")]
    pub retry: u32,
    /// The rest before the second try; it doubles with each, and the server may ask for more.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::duration, help_heading = "Patience")]
    pub retry_delay: Duration,
    /// How long name, connection and handshake may take.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::duration, help_heading = "Patience")]
    pub connect_timeout: Duration,
    /// How long nothing may move.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = units::duration, help_heading = "Patience")]
    pub stall_timeout: Duration,
    /// How long a URL may take in all.
    #[arg(long, value_name = "TIME", value_parser = units::duration, help_heading = "Patience")]
    pub max_time: Option<Duration>,
    /// Most bytes of an answer.
    #[arg(long, value_name = "SIZE", value_parser = units::size, help_heading = "Patience")]
    pub max_filesize: Option<u64>,
}

/// Over what.
#[derive(Args, Clone, Debug)]
pub struct WayArgs {
    /// Trust the certificates in this PEM file instead of the system's.
    #[arg(long, value_name = "PEM", help_heading = "Connection")]
    pub cacert: Option<PathBuf>,
    /// Take this address for a host and port; several with commas between them.
    #[arg(long, value_name = "HOST:PORT:ADDR", value_parser = resolve_entry, help_heading = "Connection")]
    pub resolve: Vec<((String, u16), Vec<IpAddr>)>,
    /// Ask these name servers instead of the system's; several with commas between them.
    #[arg(long, value_name = "ADDR[:PORT]", value_delimiter = ',', value_parser = name_server, help_heading = "Connection")]
    pub dns_servers: Vec<SocketAddr>,
    /// Do not ask name servers for HTTPS records, which may say that a server has HTTP/3.
    #[arg(long, help_heading = "Connection")]
    pub no_https_records: bool,
    /// Try HTTP/3 also where nothing is known of it; TCP runs beside it.
    #[arg(long, conflicts_with_all = ["http3_only", "no_http3"], help_heading = "Connection")]
    pub http3: bool,
    /// Speak HTTP/3 and nothing else.
    #[arg(long, conflicts_with = "no_http3", help_heading = "Connection")]
    pub http3_only: bool,
    /// Speak HTTP/2 and HTTP/1.1 only.
    #[arg(long, help_heading = "Connection")]
    pub no_http3: bool,
    /// Send nothing before the handshake, not even to servers that this run reached before.
    #[arg(long, help_heading = "Connection")]
    pub no_early_data: bool,
    /// The file that remembers which servers have HTTP/3, instead of the one in the user's cache folder.
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    pub alt_svc: Option<PathBuf>,
    /// Remember nothing of servers that have HTTP/3.
    #[arg(long, conflicts_with = "alt_svc", help_heading = "Connection")]
    pub no_alt_svc: bool,
}

const EXIT_CODES: &str = "\
Exit codes: 0 every answer a whole 2xx over a verified certificate, 1 broken off or too slow,
            2 usage, 3 name, 4 no connection, 5 TLS or certificate, 6 closed or protocol,
            7 local resource, 8 refused (3xx, 4xx), 9 server failed (5xx), 10 redirects,
            130 interrupted; several failures of different kinds are 1";

const LONG: &str = "\
Examples:
  courser get https://example.org/data.tar
          Fetch a file, or the rest of it when an earlier run was interrupted
  courser get -L --retry 5 --output-dir in https://example.org/a https://example.org/b
          Fetch two files at the same time, over one connection where the server permits it
  courser get --http3-only -o - https://example.org/
          Print what a server says over HTTP/3
  courser get -d @order.json -H 'Content-Type: application/json' https://shop.example/orders
          Send a file

Files:
  While bytes come they are in NAME.part, and NAME.part.json says which version of the file they belong
  to; the file gets its name when it is whole. The next run fetches the rest if the server says that the
  file has not changed, and everything if it has.

HTTP/3:
  Servers say with Alt-Svc that they have it; that is remembered in the user's cache folder. Where nothing
  is remembered, name servers are asked for HTTPS records beside addresses. QUIC gets a head start of
  150 ms; then TCP runs beside it, and what stands first is used. What a server does not give over HTTP/3
  is asked for again over TCP. A server that this run reached before over HTTP/3 is sent GET and HEAD with the
  first packet of a further connection (0-RTT), where it permits that; others could send these again.

Exit codes:
  0    every answer was a 2xx and came whole, over a certificate that was verified
  1    an answer broke off, was too slow or too large; or several failed in different ways
  2    the command line cannot be understood
  3    a URL or name cannot be used
  4    no connection
  5    TLS failed, or the certificate is not believed
  6    the server closed, or broke the protocol
  7    something of this machine is missing: a file, a port
  8    the server refused: 4xx, or 3xx without -L
  9    the server failed: 5xx
  10   redirects without end, or to something else than https
  130  interrupted; what came is kept";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn parse(args: &[&str]) -> Result<GetArgs, clap::Error> {
        let cli = Cli::try_parse_from(["courser", "get"].iter().chain(args))?;
        match cli.command {
            Command::Get(g) => Ok(*g),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_a_url_is_needed() {
        let g = parse(&["https://h/"]).unwrap();
        assert_eq!((g.urls.len(), g.parallel, g.patience.retry, g.request.max_redirs), (1, 4, 0, 10));
        assert_eq!((g.patience.connect_timeout, g.patience.max_time), (Duration::from_secs(10), None));
        assert!(parse(&[]).is_err());
    }

    #[test]
    fn flags_are_as_people_know_them() {
        let g = parse(&[
            "-L",
            "-H",
            "A: b",
            "-H",
            "C: d",
            "-o",
            "x",
            "-X",
            "PATCH",
            "-d",
            "a=b",
            "--resolve",
            "h:1:::1",
            "https://h",
        ]);
        let g = g.unwrap();
        assert_eq!((g.request.header.len(), g.request.location, g.output.len()), (2, true, 1));
        assert_eq!(g.way.resolve[0].0, ("h".to_owned(), 1));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for bad in [
            &["-I", "-d", "x"][..],
            &["-d", "x", "-T", "y"],
            &["--http3", "--no-http3"],
            &["--http3-only", "--no-http3"],
            &["--resolve", "h"],
            &["--parallel", "0"],
            &["--alt-svc", "f", "--no-alt-svc"],
        ] {
            assert!(parse(&[bad, &["https://h"]].concat()).is_err(), "{bad:?}");
        }
    }
}
