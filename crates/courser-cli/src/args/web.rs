//! Flags that the web servers share. Each goes before the environment, and that before the configuration file; what none of
//! them says is as `courser config default` has it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use courser_web::config::{Config, Format};

use super::{address, units};
use crate::failure::{Failure, Outcome};

/// Flags of every web server.
#[derive(Args, Clone, Debug, Default)]
pub struct WebArgs {
    /// A configuration file in TOML; see `courser config default`. Flags and environment win over it.
    #[arg(long, value_name = "FILE", env = "COURSER_CONFIG", hide_env_values = true, help_heading = "Server")]
    pub config: Option<PathBuf>,
    /// Where to listen, HOST:PORT, for TCP and UDP; several times for several addresses [default: 127.0.0.1:4433]. `[::]:PORT` is
    /// for IPv4 too, unless an address of IPv4 with that port is named beside it.
    #[arg(
        long,
        value_name = "ADDR",
        env = "COURSER_LISTEN",
        hide_env_values = true,
        help_heading = "Server",
        value_delimiter = ','
    )]
    pub listen: Vec<String>,
    /// Certificate chain in PEM, leaf first; without it a throw-away certificate is made.
    #[arg(long, value_name = "PEM", env = "COURSER_CERT", hide_env_values = true, help_heading = "Server")]
    pub cert: Option<PathBuf>,
    /// Private key in PEM.
    #[arg(long, value_name = "PEM", env = "COURSER_KEY", hide_env_values = true, help_heading = "Server")]
    pub key: Option<PathBuf>,
    /// A file with a secret, made when it is not there: clients of a server that crashed learn of it from the next one at once,
    /// instead of waiting.
    #[arg(long, value_name = "FILE", env = "COURSER_SECRET", hide_env_values = true, help_heading = "Server")]
    pub secret: Option<PathBuf>,
    /// Take requests over HTTP/3 before the handshake is complete (0-RTT); others can repeat GET and HEAD. A proxy has them wait,
    /// unless its origin is said to know of that in the configuration file.
    #[arg(long, help_heading = "Server")]
    pub early_data: bool,
    /// A field that each answer gets, `name: value`; without a value the field is taken away.
    #[arg(long, value_name = "FIELD", help_heading = "Server")]
    pub header: Vec<String>,
    /// Where requests are logged: a file, `-` for standard output, `off` [default: -].
    #[arg(long, value_name = "WHERE", env = "COURSER_ACCESS_LOG", hide_env_values = true, help_heading = "Server")]
    pub access_log: Option<String>,
    /// In which form [default: common].
    #[arg(long, value_name = "FORM", env = "COURSER_ACCESS_FORMAT", hide_env_values = true, help_heading = "Server")]
    pub access_format: Option<AccessFormat>,
    /// Where figures for Prometheus are to be had, at /metrics, without TLS.
    #[arg(long, value_name = "ADDR", env = "COURSER_METRICS", hide_env_values = true, help_heading = "Server")]
    pub metrics: Option<String>,
    /// How long requests may go on after SIGTERM; 0s: not at all. See --help for all signals [default: 10s].
    #[arg(long, value_name = "TIME", env = "COURSER_DRAIN", hide_env_values = true, help_heading = "Server",
          value_parser = units::duration)]
    pub drain: Option<Duration>,
    /// Who the process becomes once all addresses are bound.
    #[arg(long, value_name = "NAME", env = "COURSER_USER", hide_env_values = true, help_heading = "Server")]
    pub user: Option<String>,
    /// The group it gets then, when not the user's.
    #[arg(long, value_name = "NAME", env = "COURSER_GROUP", hide_env_values = true, help_heading = "Server")]
    pub group: Option<String>,
}

/// Forms of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccessFormat {
    /// Host, date, request line, status, bytes.
    Common,
    /// The same with referrer and user agent.
    Combined,
    /// One JSON object a line.
    Json,
}

/// What web servers say about signals and managers.
pub const WEB_SIGNALS: &str = "\
Signals:
  SIGTERM  let nobody new in, let requests under way go on for --drain, close what is left;
           a second one ends at once
  SIGINT   end at once
  SIGHUP   read configuration and certificates again, for what comes then, and open the access log
           anew; with a mistake in them everything stays as it is
  SIGUSR2  start the program anew, from the file it was started from and with the same flags, and give
           it all sockets: no request is lost. This process ends when its last request has; SIGTERM
           sets it the limit of --drain. The sockets stay where they are, whatever the file says (Linux)

A service manager can bind the sockets (LISTEN_FDS: TCP, UDP, or both; what it does not bind is bound at
the same ports) and is told when the server is ready (NOTIFY_SOCKET).";

impl WebArgs {
    /// The configuration file with these flags over it; the defaults when there is no file.
    ///
    /// # Errors
    /// A file that cannot be read, or a flag that means nothing.
    pub fn config(&self) -> Outcome<Config> {
        let mut config = match &self.config {
            Some(path) => Config::load(path).map_err(|mistake| Failure::Usage(mistake.to_string()))?,
            None => Config::default(),
        };
        let server = &mut config.server;
        if !self.listen.is_empty() {
            server.listen = self.listen.iter().map(|text| address::listen(text)).collect::<Outcome<_>>()?;
        }
        if self.cert.is_some() || self.key.is_some() {
            (server.certificate, server.key) = (self.cert.clone(), self.key.clone());
        }
        server.secret = self.secret.clone().or(server.secret.take());
        server.early_data |= self.early_data;
        if let Some(text) = &self.metrics {
            server.metrics = Some(address::listen(text)?);
        }
        set(&mut server.drain, self.drain.as_ref());
        set(&mut config.log.access, self.access_log.as_ref());
        server.user = self.user.clone().or(server.user.take());
        server.group = self.group.clone().or(server.group.take());
        if let Some(form) = self.access_format {
            config.log.format = match form {
                AccessFormat::Common => Format::Common,
                AccessFormat::Combined => Format::Combined,
                AccessFormat::Json => Format::Json,
            };
        }
        Ok(config)
    }

    /// Adds the fields of `--header` to every site.
    ///
    /// # Errors
    /// One without a colon.
    pub fn add_headers(&self, config: &mut Config) -> Outcome {
        for field in &self.header {
            let (name, value) = field
                .split_once(':')
                .ok_or_else(|| Failure::Usage(format!("`{field}` is no field: write it like \"name: value\"")))?;
            for site in &mut config.sites {
                site.headers.insert(name.trim().to_owned(), value.trim().to_owned());
            }
        }
        Ok(())
    }
}

fn set<T: Clone>(place: &mut T, value: Option<&T>) {
    if let Some(value) = value {
        value.clone_into(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_go_before_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        let text = "[server]\nlisten=[\"127.0.0.1:1\"]\ndrain=\"3s\"\nuser=\"a\"\n[log]\nformat=\"json\"\n[[site]]\n[site.files]";
        std::fs::write(&file, text).unwrap();
        let args = WebArgs { config: Some(file.clone()), ..WebArgs::default() };
        let config = args.config().unwrap();
        assert_eq!((config.server.drain, config.log.format), (Duration::from_secs(3), Format::Json));
        let args = WebArgs {
            listen: vec!["[::1]:7".into(), "127.0.0.1:8".into()],
            drain: Some(Duration::ZERO),
            access_log: Some("off".into()),
            access_format: Some(AccessFormat::Combined),
            header: vec!["x-a: b".into(), "server:".into()],
            ..args
        };
        let mut config = args.config().unwrap();
        args.add_headers(&mut config).unwrap();
        assert_eq!(config.server.listen, ["[::1]:7".parse().unwrap(), "127.0.0.1:8".parse().unwrap()]);
        assert_eq!((config.server.drain, config.log.format), (Duration::ZERO, Format::Combined));
        assert_eq!((config.log.access.as_str(), config.server.user.as_deref()), ("off", Some("a")));
        assert_eq!((config.sites[0].headers["x-a"].as_str(), config.sites[0].headers["server"].as_str()), ("b", ""));

        std::fs::write(&file, "[server]\nlisten=1").unwrap();
        let e = args.config().unwrap_err();
        assert!(e.code() == 2 && e.to_string().contains("c.toml:2:"), "{e}");
        let bad = WebArgs { header: vec!["x".into()], ..WebArgs::default() };
        assert_eq!(bad.add_headers(&mut Config::default()).unwrap_err().code(), 2);
        let bad = WebArgs { listen: vec!["nobody.invalid:1".into()], ..WebArgs::default() };
        assert_eq!(bad.config().unwrap_err().code(), 3);
    }
}
